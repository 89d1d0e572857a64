#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Rerankers at the prompt and in a job.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:bert = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/bert")
    $script:pairs = [LoKr.Testing.TinyData]::WritePairs("$TestDrive/pairs.jsonl", 60, 1)
    $script:pairsToMeasure = [LoKr.Testing.TinyData]::WritePairs("$TestDrive/more.jsonl", 40, 2)
}

Describe 'A reranker' {
    It 'is trained from pairs, measured as a ranking, asked, and exported' {
        $model = Import-LoKrModel $bert -Label relevance -Seed 1 -WarningAction SilentlyContinue
        New-LoKrConfig -R 4 -Alpha 8 -TargetModules all-linear | Add-LoKrAdapter $model -Seed 1
        $model | Start-LoKrTraining $pairs -ValidationData $pairsToMeasure -MaxSteps 60 -BatchSize 16 -LearningRate 1e-2 -Seed 1 -Metric NdcgAt10 -KeepBest -EvaluateEvery 20 -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Match 'reranker'
        $measured = $model | Measure-LoKrModel $pairsToMeasure
        $measured.NdcgAt10 | Should -Be $model.LastTraining.After.NdcgAt10
        $measured.NdcgAt10 | Should -BeGreaterThan $measured.MrrAt10
        Get-Display ($measured | Format-List) | Should -Match 'NdcgAt10 +: 0\.'

        $answers = @([pscustomobject] @{ text = 'vpn wifi'; text_pair = 'router cable' }, @{ text = 'vpn wifi'; text_pair = 'invoice card' } | Invoke-LoKrModel $model)
        $answers.TextPair | Should -Be 'router cable', 'invoice card'
        foreach ($answer in $answers) {
            $answer.Score | Should -BeIn @($answer.Scores.relevance)
            $answer.Score | Should -BeGreaterThan 0
            $answer.Score | Should -BeLessThan 1
        }

        # A search over texts is the same scores, in order; a batch of one text rounds otherwise on some processors.
        $found = @(Invoke-LoKrModel $model -Query 'vpn wifi' -Corpus 'invoice card', @{ id = 'r'; text = 'router cable' } -BatchSize 1)
        @($found | ForEach-Object Rank) | Should -Be 1, 2
        $sorted = @($answers.Score | Sort-Object -Descending)
        foreach ($place in 0, 1) {
            [math]::Abs($found[$place].Score - $sorted[$place]) | Should -BeLessThan 1e-6
        }

        [math]::Abs(($found | Where-Object Id -EQ 'r').Score - $answers[0].Score) | Should -BeLessThan 1e-6
        @(Invoke-LoKrModel $model -Query 'vpn wifi' -Corpus 'invoice card', 'router cable' -Top 1).Count | Should -Be 1

        $model | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/out"
        $again = Import-LoKrModel "$TestDrive/out"
        $same = @{ text = 'vpn wifi'; text_pair = 'router cable' } | Invoke-LoKrModel $again
        [math]::Abs($same.Score - $answers[0].Score) | Should -BeLessThan 1e-5
        $again.Dispose()
        $model.Dispose()
    }

    It 'is published by a job when it ranks better' {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/job").FullName
        Copy-Item -LiteralPath $bert -Destination "$folder/model" -Recurse
        Set-Content -LiteralPath "$folder/ranking.job.psd1" -Value @"
@{
    Base = @{ Path = './model'; Device = 'cpu'; Labels = 'relevance' }
    Data = @{ Path = '$pairs'; Validation = '$pairsToMeasure' }
    Configuration = @{ R = 4; Alpha = 8; TargetModules = 'all-linear' }
    Training = @{ MaxSteps = 120; BatchSize = 16; LearningRate = 1e-2; HeadLearningRate = 2e-2; Seed = 1; Metric = 'NdcgAt10'; KeepBest = `$true; EvaluateEvery = 20 }
    Gate = @{ Metric = 'NdcgAt10'; Confidence = 0.9 }
    Registry = @{ Path = './registry' }
}
"@
        $result = Invoke-LoKrJob "$folder/ranking.job.psd1" -InformationVariable lines -InformationAction SilentlyContinue -WarningAction SilentlyContinue
        $result.State | Should -Be 'Published' -Because $result.Message
        "$lines" | Should -Match 'nDCG@10 went from 0\.\d+ to 0\.\d+ on 40 queries'
        $card = (Get-LoKrAdapterVersion ranking -Registry "$folder/registry" -Alias champion).Card
        $card.Evaluation.NdcgAt10 | Should -BeGreaterThan 0.5
        $run = Get-LoKrRun "$folder/runs/ranking/*"
        $run.HeadLearningRate | Should -Be 0.02
        (Invoke-LoKrJob "$folder/ranking.job.psd1" -InformationAction Ignore).State | Should -Be 'NothingToDo'
    }
}

Describe 'A classifier with several labels' {
    It 'is published by a job when its F1 is better, with the figures of every label' {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/several").FullName
        Copy-Item -LiteralPath $bert -Destination "$folder/model" -Recurse
        foreach ($file in @{ Name = 'train'; Rows = 96; Seed = 1 }, @{ Name = 'eval'; Rows = 60; Seed = 2 }) {
            Get-Content -LiteralPath ([LoKr.Testing.TinyData]::WriteTickets("$folder/$($file.Name).jsonl", $file.Rows, $file.Seed)) | ConvertFrom-Json |
                ForEach-Object { @{ text = $_.text; tags = @($_.label) + ($_.text.Contains('my') ? @('mine') : @()) } | ConvertTo-Json -Compress } |
                Set-Content -LiteralPath "$folder/$($file.Name).tags.jsonl"
        }

        Set-Content -LiteralPath "$folder/tags.job.psd1" -Value @'
@{
    Base = @{ Path = './model'; Device = 'cpu' }
    Data = @{ Path = './train.tags.jsonl'; Validation = './eval.tags.jsonl'; Columns = @{ label = 'tags' } }
    Configuration = @{ R = 2; Alpha = 4; TargetModules = 'query', 'value' }
    Training = @{ MaxSteps = 120; BatchSize = 8; LearningRate = 1e-2; Seed = 3; Metric = 'MicroF1'; KeepBest = $true; EvaluateEvery = 20 }
    Gate = @{ Metric = 'MicroF1'; Confidence = 0.9 }
    Registry = @{ Path = './registry' }
}
'@
        $result = Invoke-LoKrJob "$folder/tags.job.psd1" -InformationVariable lines -InformationAction SilentlyContinue -WarningAction SilentlyContinue
        $result.State | Should -Be 'Published' -Because $result.Message
        "$lines" | Should -Match 'micro F1 went from'
        "$lines" | Should -Match 'new head \(classifier\)'
        $gate = Get-Content -Path "$folder/runs/tags/*/gate.json" -Raw | ConvertFrom-Json
        $gate.labels.label | Sort-Object | Should -Be 'access', 'billing', 'mine', 'network'
    }
}
