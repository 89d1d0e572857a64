#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Is the new adapter better, and are the new data sound: what a job asks before it trains and before it publishes.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'Test-LoKrGate' {
    BeforeAll {
        $script:model = Get-AdaptedTinyModel
        $script:rowsToMeasure = [LoKr.Testing.TinyData]::WriteTickets("$TestDrive/gate.jsonl", 96, 5)
        $model | Export-LoKrAdapter -Destination "$TestDrive/untrained"
        $model | Start-LoKrTraining -Data $rows -MaxSteps 60 -BatchSize 8 -LearningRate 2e-2 -Seed 3 -RunPath "$TestDrive/run"
        $script:version = Register-LoKrAdapter tickets "$TestDrive/run" -Registry "$TestDrive/registry" | Publish-LoKrAdapter
    }

    AfterAll {
        $model.Dispose()
    }

    It 'passes an adapter that is better, and says why' {
        $gate = $model | Test-LoKrGate -Champion "$TestDrive/untrained" -Challenger default -Data $rowsToMeasure -MinimumImprovement 0.005
        $gate.Passed | Should -BeTrue -Because "$gate"
        $gate.ExitCode | Should -Be 0
        $gate.RowCount | Should -Be 96
        $gate.Test | Should -Be 'McNemar'
        $gate.Reasons | Should -Match '^The accuracy went from 0\.\d{4} to 0\.\d{4} on 96 rows, better by '
        $gate.Labels.Label | Should -Be 'network', 'access', 'billing'
        ($gate.Labels | Measure-Object RowCount -Sum).Sum | Should -Be 96
        $gate.ChallengerValue | Should -Be ($model | Measure-LoKrModel -Data $rowsToMeasure).Accuracy
    }

    It 'compares with the base model where there is no champion yet' {
        $none = Get-LoKrAdapterVersion other -Registry "$TestDrive/registry" -Alias champion -ErrorAction SilentlyContinue
        $gate = $model | Test-LoKrGate -Champion $none -Challenger default -Data $rowsToMeasure -Metric Loss
        $gate.Passed | Should -BeTrue -Because "$gate"
        $gate.Champion | Should -BeNullOrEmpty
        $gate.Test | Should -Be 'Bootstrap'
    }

    It 'compares by <_>, which is that of the evaluation' -ForEach 'MicroF1', 'F1', 'WeightedF1', 'Precision', 'Recall', 'MatthewsCorrelation' {
        $gate = $model | Test-LoKrGate -Champion "$TestDrive/untrained" -Challenger default -Data $rowsToMeasure -Metric $_
        $measured = $model | Measure-LoKrModel -Data $rowsToMeasure
        $gate.Metric | Should -Be $_
        $gate.ChallengerValue | Should -Be $measured.ValueOf($_)
        $gate.Improvement | Should -BeGreaterThan 0
        $gate.Test | Should -Be ($_ -eq 'MicroF1' ? 'McNemar' : 'Bootstrap')
    }

    It 'gives the figures of every label and the confusion table, which add up' {
        $all = $model | Measure-LoKrModel -Data $rowsToMeasure
        $byLabel = $model | Measure-LoKrModel -Data $rowsToMeasure -ByLabel
        $byLabel.Label | Should -Be 'network', 'access', 'billing'
        ($byLabel | Measure-Object F1 -Average).Average | Should -Be $all.F1
        ($byLabel | Measure-Object RowCount -Sum).Sum | Should -Be 96
        $confusion = $model | Measure-LoKrModel -Data $rowsToMeasure -Confusion
        ($confusion | Measure-Object RowCount -Sum).Sum | Should -Be 96
        (($confusion | Where-Object IsRight | Measure-Object RowCount -Sum).Sum / 96) | Should -Be $all.Accuracy
        foreach ($label in $byLabel) {
            $own = $confusion | Where-Object Label -EQ $label.Label
            ($own | Where-Object IsRight).Share | Should -Be $label.Recall
        }
    }

    It 'refuses an equal adapter, of a run as of a registry, and leaves the model as it was' {
        $gate = $model | Test-LoKrGate -Champion $version -Challenger "$TestDrive/run" -Data $rowsToMeasure
        $gate.Passed | Should -BeFalse
        $gate.ExitCode | Should -Be 4
        $gate.Champion | Should -Be 'tickets 1'
        $gate.Challenger | Should -Be (Get-LoKrRun "$TestDrive/run").Id
        $gate.Reasons | Should -Match 'no better'
        $gate.PValue | Should -Be 1
        $model.Adapters.Name | Should -Be 'default'
        (Get-Item -LiteralPath "$TestDrive/untrained" | ForEach-Object { $model | Test-LoKrGate -Challenger $_ -Champion default -Data $rowsToMeasure }).Passed | Should -BeFalse
    }

    It 'warns of a limit for labels without labels' {
        $language = Import-LoKrModel -Path ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/llama"))
        New-LoKrConfig -R 2 | Add-LoKrAdapter -Model $language -Seed 1
        $pairs = [LoKr.Testing.TinyData]::WriteCompletions("$TestDrive/pairs.jsonl", 24)
        $gate = $language | Test-LoKrGate -Challenger default -Data $pairs -MaximumRegression 0.1 -WarningVariable warnings -WarningAction SilentlyContinue
        $gate.Metric | Should -Be 'Perplexity'
        $gate.Passed | Should -BeFalse
        $warnings | Should -Match 'no effect'
        $language.Dispose()
    }

    It 'names what cannot be compared: <Id>' -ForEach @(
        @{ Id = 'LoKr.AdapterNotFound'; Script = { $model | Test-LoKrGate -Challenger none -Data $rowsToMeasure } }
        @{ Id = 'LoKr.MetricUnavailable'; Script = { $model | Test-LoKrGate -Challenger default -Data $rowsToMeasure -Metric Perplexity } }
        @{ Id = 'LoKr.InvalidArgument'; Script = { $model | Test-LoKrGate -Challenger default -Data $rowsToMeasure -Confidence 95 } }
    ) {
        (Get-Failure $Script).FullyQualifiedErrorId | Should -BeLike "$Id,*"
    }

    It 'shows its verdict in one line, and the labels below each other, also after a job' {
        $gate = $model | Test-LoKrGate -Champion "$TestDrive/untrained" -Challenger default -Data $rowsToMeasure
        $copy = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($gate, 3))
        foreach ($shown in $gate, $copy) {
            Get-Display $shown 80 | Should -Match 'True +untrained +default +Accuracy +0[.,]\d+ → [01][.,]\d+ +0[.,]\d{4} +96'
            Get-Display ($shown | Format-List) 120 | Should -Match '(?s)Reasons +: The accuracy.*Labels +: network \+?'
            Get-Display $shown.Labels 80 | Should -Match 'billing +32 +'
        }
    }
}

Describe 'Start-LoKrTraining by a metric of labels' {
    It 'keeps the best evaluation by a metric of labels' {
        $other = Get-AdaptedTinyModel
        try {
            $result = ($other | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MaxSteps 20 -EvaluateEvery 5 -LearningRate 2e-2 -Seed 3 -KeepBest -Metric MatthewsCorrelation -PassThru).LastTraining
            $result.BestStep | Should -BeIn 5, 10, 15, 20
            $result.After.MatthewsCorrelation | Should -Be ($other | Measure-LoKrModel -Data $rowsToMeasure).MatthewsCorrelation
        }
        finally {
            $other.Dispose()
        }
    }
}

Describe 'Measure-LoKrData' {
    BeforeAll {
        Set-Content -LiteralPath "$TestDrive/old.jsonl" -Value '{"text":"vpn is slow","label":"network"}', '{"text":"invoice","label":"billing"}'
        Set-Content -LiteralPath "$TestDrive/new.jsonl" -Value '{"text":"vpn is slow","label":"network"}', '{"text":"vpn is slow","label":"network"}', '{"text":"printer zzz","label":"hardware"}'
        $null = Get-TinyModel
        $script:folder = $tiny
    }

    It 'compares data with earlier ones and with validation data' {
        $data = Measure-LoKrData "$TestDrive/new.jsonl" -Reference "$TestDrive/old.jsonl" -ValidationData @{ text = 'vpn is slow'; label = 'network' }
        $data.RowCount | Should -Be 3
        $data.DuplicateCount | Should -Be 1
        $data.SharedCount | Should -Be 1
        $data.KnownCount | Should -Be 2
        $data.NewLabels | Should -Be 'hardware'
        $data.Labels.Label | Should -Be 'billing', 'hardware', 'network'
        $data.LabelShift | Should -BeGreaterThan 0.1
        @($data.Findings.Kind) | Should -Contain 'NewLabels'
        Get-Display $data.Findings 100 | Should -Match 'NewLabels +1 +Labels never seen before: hardware'
        Get-Display $data 90 | Should -Match '(?m)^ +3 +3 +1 +1 '
    }

    It 'counts the tokens of the folder of a model without its weights' {
        Copy-Item -LiteralPath $folder -Destination "$TestDrive/bare" -Recurse
        Remove-Item -LiteralPath "$TestDrive/bare/model.safetensors"
        $data = Measure-LoKrData "$TestDrive/new.jsonl" -Model "$TestDrive/bare" -MaxLength 4
        $data.LengthUnit | Should -Be 'tokens'
        # [CLS] vpn is slow [SEP] twice, and [CLS] printer zzz [SEP], neither of which the vocabulary has.
        $data.TokenCount | Should -Be 14
        $data.UnknownTokenShare | Should -Be (2 / 14)
        $data.CutCount | Should -Be 2
    }

    It 'makes findings errors with ids of their own, and writes the summary all the same' {
        $data = Measure-LoKrData "$TestDrive/new.jsonl" -Reference "$TestDrive/old.jsonl" -Threshold @{ Duplicates = 0.1; newlabels = 0; Empty = 0 } -ErrorVariable failures -ErrorAction SilentlyContinue
        $data.RowCount | Should -Be 3
        $failures.FullyQualifiedErrorId -replace ',.*' | Should -Be 'LoKr.DataDuplicate', 'LoKr.DataLabelNew'
        $failures[0].CategoryInfo.Category | Should -Be 'InvalidData'
        Get-ErrorId { Measure-LoKrData "$TestDrive/new.jsonl" -Threshold @{ Wrong = 1 } } | Should -Be 'LoKr.InvalidArgument'
    }

    It 'warns of a length without a model' {
        $null = Measure-LoKrData "$TestDrive/new.jsonl" -MaxLength 4 -WarningVariable warnings -WarningAction SilentlyContinue
        $warnings | Should -Match '^-MaxLength has no effect without -Model'
    }
}
