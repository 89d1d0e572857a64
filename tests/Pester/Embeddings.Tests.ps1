#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Sentence encoders: vectors, search, training by pairs, measures.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:bert = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/bert")
    $script:model = Import-LoKrModel -LiteralPath $bert -WarningAction SilentlyContinue
    $script:pairs = foreach ($row in 0..23) {
        $words = [LoKr.Testing.TinyData]::Words
        @{ query = "$($words[$row % 5]) $($words[15 + [math]::Floor($row / 5)])"; positive = "$($words[5 + $row % 5]) $($words[10 + [math]::Floor($row / 5)])" }
    }
}

AfterAll {
    $model.Dispose()
}

Describe 'A sentence encoder' {
    It 'is what an encoder without a head is, and says so' {
        $records = @(Import-LoKrModel -LiteralPath $bert 3>&1)
        $records[0] | Should -BeOfType ([System.Management.Automation.WarningRecord])
        "$($records[0])" | Should -Match 'mean'
        $records[1].Name | Should -Be 'BertModel'
        $records[1].Dispose()
    }

    It 'gives a vector for each text, in order' {
        $vectors = 'vpn', 'wifi router', 'vpn' | Invoke-LoKrModel $model -BatchSize 2
        $vectors.Text | Should -Be 'vpn', 'wifi router', 'vpn'
        , $vectors[0].Vector | Should -BeOfType ([float[]])
        $vectors[0].Dimension, $vectors[0].Vector.Count, $vectors[1].TokenCount | Should -Be 16, 16, 4
        $apart = 0..15 | ForEach-Object { [math]::Abs($vectors[0].Vector[$_] - $vectors[2].Vector[$_]) }
        ($apart | Measure-Object -Maximum).Maximum | Should -BeLessThan 1e-5
    }

    It 'shows the first numbers of a vector, and all of them survive a job and a file' {
        $vector = Invoke-LoKrModel $model 'vpn'
        $text = Get-Display $vector
        $text | Should -Match '…'
        ($text -split '\n').Count | Should -BeLessThan 8
        $text | Should -Match ([regex]::Escape($vector.Vector[0].ToString('F4')))
        $text | Should -Not -Match ([regex]::Escape($vector.Vector[5].ToString('F4')))
        $vector | Export-Clixml -LiteralPath "$TestDrive/vector.xml"
        $again = Import-Clixml -LiteralPath "$TestDrive/vector.xml"
        $again.Vector | Should -Be $vector.Vector
        Get-Display $again | Should -Be $text
    }

    It 'has length one and another pooling where that is asked for' {
        $own = Import-LoKrModel -LiteralPath $bert -Pooling Cls, Mean -Normalize
        $vector = (Invoke-LoKrModel $own 'vpn wifi').Vector
        $vector.Count | Should -Be 32
        [math]::Sqrt(($vector | ForEach-Object { $_ * $_ } | Measure-Object -Sum).Sum) | Should -BeGreaterThan 0.99999
        $own | Export-LoKrModel -Destination "$TestDrive/exported"
        (Get-Content -LiteralPath "$TestDrive/exported/modules.json" -Raw | ConvertFrom-Json).type | Should -Be 'sentence_transformers.models.Transformer', 'sentence_transformers.models.Pooling', 'sentence_transformers.models.Normalize'
        $again = Import-LoKrModel -LiteralPath "$TestDrive/exported" -WarningVariable said
        $said | Should -BeNullOrEmpty
        (Invoke-LoKrModel $again 'vpn wifi').Vector | Should -Be $vector
        $own.Dispose()
        $again.Dispose()
        Get-ErrorId { Import-LoKrModel -LiteralPath $bert -Pooling Mean -Label a, b } | Should -Be 'LoKr.InvalidArgument'
    }

    It 'takes no prompt that it does not have' {
        Get-ErrorId { Invoke-LoKrModel $model 'vpn' -PromptName query } | Should -Be 'LoKr.InvalidArgument'
        $said = @(Invoke-LoKrModel $model 'vpn' -Temperature 1 3>&1 | Where-Object { $_ -is [System.Management.Automation.WarningRecord] })
        "$said" | Should -Match 'Temperature has no effect for a sentence encoder'
    }
}

Describe 'A search' {
    It 'finds the nearest texts of texts, rows and files' {
        Set-Content -LiteralPath "$TestDrive/corpus.jsonl" -Value '{"id": 7, "document": "refund payment"}', '{"document": "price card"}'
        $found = Invoke-LoKrModel $model -Query 'refund payment' -Corpus 'vpn wifi', "$TestDrive/corpus.jsonl", @{ id = 'x'; text = 'my login' } -Top 3
        # An array has a rank of its own.
        $found | ForEach-Object Rank | Should -Be 1, 2, 3
        $found[0].Text, $found[0].Id, $found[0].Index | Should -Be 'refund payment', '7', 1
        $found[0].Score | Should -BeGreaterThan 0.9999
        $found[0].Score, $found[1].Score, $found[2].Score | Should -Be ($found.Score | Sort-Object -Descending)
        Get-Display $found | Should -Match '(?m)^ +1 +1[.,]0000 7 +refund payment'
        Get-ErrorId { Invoke-LoKrModel $model -Query 'a' -Corpus "$TestDrive/none.jsonl" } | Should -Be 'LoKr.PathNotFound'
        Get-ErrorId { Invoke-LoKrModel $model -Query 'a' -Corpus @{ label = 'a' } } | Should -Be 'LoKr.DataColumnMissing'
        Get-ErrorId { Invoke-LoKrModel $model -Query 'a' -Corpus @() } | Should -Be 'LoKr.DataEmpty'
    }

    It 'takes queries from the pipeline, and other names of columns' {
        $corpus = @([pscustomobject] @{ Body = 'vpn wifi' }, [pscustomobject] @{ Body = 'invoice price' })
        $found = 'vpn wifi', [pscustomobject] @{ Query = 'invoice price' } | Invoke-LoKrModel $model -Corpus $corpus -Column @{ text = 'Body' } -Top 1
        $found.Text | Should -Be 'vpn wifi', 'invoice price'
        $found.Query | Should -Be 'vpn wifi', 'invoice price'
    }

    It 'is not what a classifier does' {
        $classifier = Get-TinyModel
        Get-ErrorId { Invoke-LoKrModel $classifier -Query 'a' -Corpus 'b' } | Should -Be 'LoKr.TaskUnknown'
        $classifier.Dispose()
    }
}

Describe 'Training by pairs' {
    It 'makes a search better, says which loss it takes, and measures it' {
        $own = Import-LoKrModel -LiteralPath $bert -WarningAction SilentlyContinue
        New-LoKrConfig -R 4 -Alpha 8 -TargetModules query, value, dense | Add-LoKrAdapter $own -Seed 1
        $documents = @{ document = 'the is not' }, @{ document = 'working my' }
        $said = $own | Start-LoKrTraining -Data $pairs -ValidationData $pairs, $documents -EvaluateBefore -Epochs 40 -BatchSize 12 -LearningRate 2e-2 -Seed 1 -Metric RecallAt1 -KeepBest -InformationAction Continue 6>&1
        "$said" | Should -Match 'MultipleNegativesRanking'
        "$said" | Should -Match 'nDCG@10'
        $own.LastTraining.After.RecallAt1 | Should -BeGreaterThan $own.LastTraining.Before.RecallAt1
        $measured = $own | Measure-LoKrModel -Data $pairs, $documents
        $measured.MrrAt10 | Should -Be $own.LastTraining.After.MrrAt10
        Get-Display $measured | Should -Match 'Recall@1 +Recall@10'
        Get-Display $own.LastTraining | Should -Match 'NdcgAt10After'
        $gate = Test-LoKrGate -Model $own -Challenger default -Data $pairs -Metric MrrAt10
        $gate.Passed | Should -BeTrue
        $gate.Metric | Should -Be 'MrrAt10'
        $own.Dispose()
    }

    It 'takes another loss by its name' {
        $own = Import-LoKrModel -LiteralPath $bert -WarningAction SilentlyContinue
        New-LoKrConfig -R 2 -TargetModules query | Add-LoKrAdapter $own -Seed 1
        $triplets = @{ anchor = 'vpn'; positive = 'wifi'; negative = 'price' }, @{ anchor = 'card'; positive = 'price'; negative = 'wifi' }
        $own | Start-LoKrTraining -Data $triplets -EmbeddingLoss Triplet -TripletDistance Cosine -TripletMargin 0.5 -MaxSteps 1 -Seed 1
        $own.LastTraining.History[0].Loss | Should -BeLessThan 2.5
        $scored = @{ sentence1 = 'vpn'; sentence2 = 'wifi'; score = 1 }, @{ sentence1 = 'vpn'; sentence2 = 'price'; score = 0 }, @{ sentence1 = 'card'; sentence2 = 'price'; score = 0.5 }
        $own | Start-LoKrTraining -Data $scored -EmbeddingLoss CosineSimilarity -MaxSteps 1 -Seed 1
        (Get-Display ($own | Measure-LoKrModel -Data $scored)) | Should -Match 'Spearman'
        Get-ErrorId { $own | Start-LoKrTraining -Data $scored -EmbeddingLoss Triplet -MaxSteps 1 } | Should -Be 'LoKr.TrainingOptionInvalid'
        $own.Dispose()
    }

    It 'goes on from a run folder with the same bits' {
        $folders = foreach ($stop in $null, 3) {
            $own = Import-LoKrModel -LiteralPath $bert -WarningAction SilentlyContinue
            New-LoKrConfig -R 2 -TargetModules query | Add-LoKrAdapter $own -Seed 1
            $options = @{ Data = $pairs; BatchSize = 6; Epochs = 2; Seed = 1; NoDuplicates = $true; RunPath = "$TestDrive/run$stop" }
            if ($stop) {
                $null = $own | Start-LoKrTraining @options -ReportStep -CheckpointEvery 1 -WarningAction SilentlyContinue | Select-Object -First $stop
                $own.Dispose()
                $own = Import-LoKrModel -LiteralPath $bert -WarningAction SilentlyContinue
                New-LoKrConfig -R 2 -TargetModules query | Add-LoKrAdapter $own -Seed 1
            }

            $own | Start-LoKrTraining @options -WarningAction SilentlyContinue
            $own.LastTraining.History.Count | Should -Be 8
            $own.Dispose()
            (Get-FileHash -LiteralPath "$TestDrive/run$stop/adapter/adapter_model.safetensors").Hash
        }

        $folders[0] | Should -Be $folders[1]
    }
}

Describe 'A job for a search' {
    It 'publishes what finds more, by its metric in the gate, and goes on from the champion' {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/job").FullName
        $null = [LoKr.Testing.TinyModel]::WriteBert("$folder/model")
        $pairs | ForEach-Object { $_ | ConvertTo-Json -Compress } | Set-Content -LiteralPath "$folder/pairs.jsonl"
        @{ document = 'the is not' }, @{ document = 'working my' } | ForEach-Object { $_ | ConvertTo-Json -Compress } | Set-Content -LiteralPath "$folder/documents.jsonl"
        Set-Content -LiteralPath "$folder/search.job.psd1" -Value @'
@{
    Base = @{ Path = './model'; Device = 'cpu'; Pooling = 'Mean'; Normalize = $true }
    Data = @{ Path = './pairs.jsonl'; Validation = './pairs.jsonl', './documents.jsonl' }
    Configuration = @{ R = 4; Alpha = 8; TargetModules = 'query', 'value', 'dense' }
    Training = @{ Epochs = 40; BatchSize = 12; LearningRate = 2e-2; Seed = 1; KeepBest = $true; Metric = 'NdcgAt10'; NoDuplicates = $true }
    Gate = @{ Metric = 'MrrAt10'; MinimumImprovement = 0.05 }
    Registry = @{ Path = './registry'; StartFrom = 'Champion' }
}
'@
        (Test-LoKrJob "$folder/search.job.psd1").Problems | Should -BeNullOrEmpty
        $result = Invoke-LoKrJob "$folder/search.job.psd1" -WarningAction SilentlyContinue -InformationAction SilentlyContinue
        $result.State | Should -Be 'Published' -Because $result.Message
        $result.Gate | Should -Match 'MRR@10'
        $result.Evaluation.NdcgAt10 | Should -BeGreaterThan 0
        Invoke-LoKrJob "$folder/search.job.psd1" -WarningAction SilentlyContinue | ForEach-Object State | Should -Be 'NothingToDo'

        $served = Import-LoKrModel -LiteralPath "$folder/model" -Pooling Mean -Normalize
        $served | Import-LoKrAdapter -Name search -Registry "$folder/registry"
        ($served | Measure-LoKrModel -Data "$folder/pairs.jsonl", "$folder/documents.jsonl").NdcgAt10 | Should -Be $result.Evaluation.NdcgAt10
        $served.Dispose()
        Get-Content -LiteralPath (Get-ChildItem -LiteralPath "$folder/runs" -Recurse -Filter log.jsonl).FullName | Select-String -Pattern 'ndcgAt10' | Should -Not -BeNullOrEmpty
    }
}
