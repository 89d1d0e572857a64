#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Entities: words with tags in, entities out, at the prompt and in jobs.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:tags = [LoKr.Testing.TinyData]::Tags
    $script:tiny = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/bert")
    $script:rows = [LoKr.Testing.TinyData]::WriteTagged("$TestDrive/train.jsonl", 96, 1)
    $script:columns = [LoKr.Testing.TinyData]::WriteTagged("$TestDrive/eval.conll", 24, 2)

    function Get-Tagger {
        $model = Import-LoKrModel -LiteralPath $encoder -Task TokenClassification -Label $tags -Seed 1 -Device cpu -WarningAction SilentlyContinue
        New-LoKrConfig -R 4 -Alpha 8 -TargetModules query, value | Add-LoKrAdapter -Model $model -Seed 1 -PassThru
    }
}

Describe 'A tagger' {
    BeforeAll {
        $script:model = Get-Tagger
        $script:before = $model | Measure-LoKrModel -Data $columns
        $model | Start-LoKrTraining -Data $rows -ValidationData $columns -MaxSteps 60 -LearningRate 2e-2 -BatchSize 16 -EvaluateEvery 20 -KeepBest -Metric EntityF1 -Seed 1
    }

    AfterAll {
        $model.Dispose()
    }

    It 'learns its task, and keeps what had the best entities' {
        $model.Name | Should -Be 'BertForTokenClassification'
        $model.Adapters[0].Config.TaskType | Should -Be 'TokenClassification'
        $after = $model | Measure-LoKrModel -Data $columns
        $before.EntityF1 | Should -BeLessThan 0.5
        $after.EntityF1 | Should -BeGreaterThan 0.9
        $after.EntityF1 | Should -Be $model.LastTraining.After.EntityF1
        $after.TokenCount | Should -Be @(Get-Content -LiteralPath $columns | Where-Object { $_ }).Count
        $evaluated = @($model.LastTraining.History | Where-Object { $null -ne $_.EntityF1 })
        $evaluated.Step | Should -Be 20, 40, 60
        ($evaluated | Measure-Object -Property EntityF1 -Maximum).Maximum | Should -Be $after.EntityF1
    }

    It 'finds entities in texts, in words and in files' {
        $found = @('the wifi router is working', 'my password' | Invoke-LoKrModel -Model $model)
        $found.Type | Should -Be 'DEVICE', 'ACCOUNT'
        $found.Text | Should -Be 'wifi router', 'password'
        $found.Start | Should -Be 4, 3
        $found.End | Should -Be 15, 11
        $found.Index | Should -Be 0, 1
        $found[0].Score | Should -BeGreaterThan 0.5
        $found[0].Source | Should -Be 'the wifi router is working'
        (@{ tokens = 'the', 'wifi', 'router' } | Invoke-LoKrModel -Model $model).Text | Should -Be 'wifi router'
        ([pscustomobject] @{ Words = 'my', 'login' } | Invoke-LoKrModel -Model $model).Type | Should -Be 'ACCOUNT'
        $ofFile = @(Invoke-LoKrModel -Model $model -Data $columns -BatchSize 5)
        ($ofFile.Index | Sort-Object -Unique)[-1] | Should -BeLessThan 24
        ($ofFile | Where-Object Index -EQ 7)[0].Source | Should -Be (((Get-Content -LiteralPath $columns -Raw) -split '\r?\n\r?\n+')[7].Trim() -replace ' \S+(\r?\n|$)', ' ').Trim()
        @('the is' | Invoke-LoKrModel -Model $model).Count | Should -Be 0
    }

    It 'has the figures of every type, and a confusion table of tags' {
        $types = @($model | Measure-LoKrModel -Data $columns -ByLabel)
        $types.Label | Should -Be 'ACCOUNT', 'DEVICE'
        ($types | Measure-Object -Property RowCount -Sum).Sum | Should -Be @(Select-String -LiteralPath $columns -Pattern ' B-').Count
        $table = $model | Measure-LoKrModel -Data $columns -Confusion
        ($table | Where-Object Label -EQ 'O' | Measure-Object -Property RowCount -Sum).Sum | Should -Be @(Select-String -LiteralPath $columns -Pattern ' O$').Count
    }

    It 'takes the tags that were joined as asked for' {
        $text = 'the wifi router'
        foreach ($aggregation in 'First', 'Simple', 'Average', 'Max') {
            ($text | Invoke-LoKrModel -Model $model -Aggregation $aggregation).Text | Should -Be 'wifi router' -Because $aggregation
        }

        Get-Completion 'Invoke-LoKrModel $model -Aggregation S' | Should -Be 'Simple'
        $warnings = @()
        $texts = Import-LoKrModel -LiteralPath $tiny -Label a, b -WarningAction SilentlyContinue
        $null = 'x' | Invoke-LoKrModel -Model $texts -Aggregation Max -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Match '-Aggregation'
        $texts.Dispose()
    }

    It 'is shown as people need it, after a round trip too' {
        $found = 'the wifi router is working' | Invoke-LoKrModel -Model $model
        Get-Display $found | Should -Match 'Text +Type +Start +End +Score Source'
        Get-Display $found | Should -Match 'wifi router +DEVICE +4 +15 +[01][.,]\d{4} the wifi'
        $copy = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($found))
        Get-Display $copy | Should -Be (Get-Display $found)
        Get-Display ($copy | Format-List) | Should -Be (Get-Display ($found | Format-List))
        Get-Display ($model | Measure-LoKrModel -Data $columns) | Should -Match 'EntityF1'
        Get-Display ($model | Measure-LoKrModel -Data $columns | Format-List) | Should -Match '(?s)EntityF1 +: .*StrictEntityRecall +: '
        Get-Display $model.LastTraining | Should -Match 'EntityF1After +: '
    }

    It 'is exported as a model of its own, and its adapter brings task and labels' {
        Export-LoKrAdapter -Model $model -Destination "$TestDrive/adapter"
        $expected = 'the wifi router is working', 'my login' | Invoke-LoKrModel -Model $model
        $model | Merge-LoKrAdapter
        try {
            Export-LoKrModel -Model $model -Destination "$TestDrive/tagger"
        }
        finally {
            $model | Undo-LoKrMerge
        }

        (Get-Content -LiteralPath "$TestDrive/tagger/config.json" -Raw | ConvertFrom-Json).architectures | Should -Be 'BertForTokenClassification'
        $exported = Import-LoKrModel -LiteralPath "$TestDrive/tagger"
        $again = Import-LoKrModel -LiteralPath $encoder -LabelFrom "$TestDrive/adapter" -WarningAction SilentlyContinue
        Import-LoKrAdapter -Path "$TestDrive/adapter" -Model $again
        foreach ($other in $exported, $again) {
            $found = 'the wifi router is working', 'my login' | Invoke-LoKrModel -Model $other
            $found.Text | Should -Be $expected.Text
            $found.Type | Should -Be $expected.Type
            $other.Dispose()
        }

        Merge-LoKrAdapter -Path $encoder -Adapter "$TestDrive/adapter" -Destination "$TestDrive/merged"
        $merged = Import-LoKrModel -LiteralPath "$TestDrive/merged"
        $merged.Name | Should -Be 'BertForTokenClassification'
        ('my login' | Invoke-LoKrModel -Model $merged).Type | Should -Be 'ACCOUNT'
        $merged.Dispose()
    }
}

Describe 'Tagging' {
    It 'is a task by the names of both, and completes' {
        foreach ($name in 'TOKEN_CLS', 'TokenClassification') {
            $model = Import-LoKrModel -LiteralPath $tiny -Task $name -Label $tags -WarningAction SilentlyContinue
            $model.Name | Should -Be 'BertForTokenClassification'
            $model.Dispose()
        }

        Get-Completion 'Import-LoKrModel x -Task T' | Should -Be 'TokenClassification'
        Get-Completion "Import-LoKrModel x -LabelFrom y -Label 'B-A' ; Import-LoKrModel $columns -Label B" | Should -Be 'B-ACCOUNT', 'B-DEVICE'
    }

    It 'says what does not fit' {
        $model = Get-Tagger
        Set-Content -LiteralPath "$TestDrive/wrong.jsonl" -Value '{"tokens":["my","login"],"ner_tags":["O"]}'
        Get-ErrorId { $model | Measure-LoKrModel -Data "$TestDrive/wrong.jsonl" } | Should -Be 'LoKr.DataValueInvalid'
        Set-Content -LiteralPath "$TestDrive/wrong.jsonl" -Value '{"tokens":["my","login"],"ner_tags":["O","B-CITY"]}'
        Get-ErrorId { $model | Measure-LoKrModel -Data "$TestDrive/wrong.jsonl" } | Should -Be 'LoKr.LabelUnknown'
        Get-ErrorId { @{ text = 'a'; text_pair = 'b' } | Invoke-LoKrModel -Model $model } | Should -Be 'LoKr.DataValueInvalid'
        Get-ErrorId { @{ words = @() } | Invoke-LoKrModel -Model $model } | Should -Be 'LoKr.DataValueInvalid'
        $model.Dispose()
        $llama = [LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/llama")
        (Import-LoKrModel -LiteralPath $llama -Task TOKEN_CLS -Label $tags -WarningAction SilentlyContinue).Name | Should -Be 'LlamaForTokenClassification'
        Get-ErrorId { Import-LoKrModel -LiteralPath $tiny -Task CausalLanguageModeling } | Should -Be 'LoKr.TaskUnknown'
        Get-ErrorId { Import-LoKrModel -LiteralPath $tiny -Task Other } | Should -Be 'CannotConvertArgumentNoMessage'
        Get-ErrorId { Import-LoKrModel -LiteralPath $tiny -Task QuestionAnswering } | Should -Be 'ParameterArgumentValidationError'
    }

    It 'runs as a job of its own' {
        $request = @{ Data = $rows; ValidationData = $columns; Path = $tiny; Task = 'TokenClassification'; Label = $tags; MaxSteps = 4; Seed = 1; WarningAction = 'SilentlyContinue' }
        $training = New-LoKrConfig -R 2 -TargetModules query | Start-LoKrTraining @request -AsJob | Receive-Job -Wait -AutoRemoveJob -WarningAction SilentlyContinue | Select-Object -Last 1
        $training.StopReason | Should -Be 'Completed'
        $training.After.EntityF1 | Should -BeGreaterOrEqual 0
    }

    It 'is measured as data: words count, and so do tags' {
        $summary = Measure-LoKrData -Data $rows -Model $tiny
        $summary.LengthUnit | Should -Be 'tokens'
        ($summary.Labels | Where-Object Label -EQ 'O').RowCount | Should -Be ([regex]::Matches((Get-Content -LiteralPath $rows -Raw), '"O"').Count)
    }
}

Describe 'A tagging job' {
    It 'asks the gate about entities, unattended' {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/job").FullName
        Copy-Item -LiteralPath $encoder -Destination "$folder/model" -Recurse
        $null = [LoKr.Testing.TinyData]::WriteTagged("$folder/train.jsonl", 96, 1)
        $null = [LoKr.Testing.TinyData]::WriteTagged("$folder/eval.conll", 60, 2)
        Set-Content -LiteralPath "$folder/tags.job.psd1" -Value @'
@{
    Base = @{ Path = './model'; Device = 'cpu'; Task = 'TokenClassification' }
    Data = @{ Path = './train.jsonl'; Validation = './eval.conll' }
    Configuration = @{ R = 4; Alpha = 8; TargetModules = 'query', 'value' }
    Training = @{ MaxSteps = 40; BatchSize = 16; LearningRate = 2e-2; Seed = 1; EvaluateEvery = 20; KeepBest = $true; Metric = 'StrictEntityF1' }
    Gate = @{ Metric = 'EntityF1'; Confidence = 0.9; MaximumRegression = 0.1 }
    Registry = @{ Path = './registry' }
}
'@
        (Test-LoKrJob "$folder/tags.job.psd1").IsValid | Should -BeTrue
        $result = Invoke-LoKrJob "$folder/tags.job.psd1" -InformationVariable lines -InformationAction SilentlyContinue
        $result.State | Should -Be 'Published' -Because $result.Message
        $result.Evaluation.EntityF1 | Should -BeGreaterThan 0.8
        "$lines" | Should -Match '(?s)entity F1 0[.]\d{4}.*Gate passed: The entity F1 went from'
        $run = Get-LoKrRun "$folder/runs/tags/*"
        $gate = Get-Content -LiteralPath "$($run.Path)/gate.json" -Raw | ConvertFrom-Json
        $gate.metric | Should -Be 'EntityF1'
        $gate.labels.label | Should -Be 'ACCOUNT', 'DEVICE'
        $version = Get-LoKrAdapterVersion tags -Registry "$folder/registry" -Alias champion
        $version.Card.Labels | Should -Be 'B-ACCOUNT', 'B-DEVICE', 'I-ACCOUNT', 'I-DEVICE', 'O'
        (Invoke-LoKrJob "$folder/tags.job.psd1").State | Should -Be 'NothingToDo'
    }
}
