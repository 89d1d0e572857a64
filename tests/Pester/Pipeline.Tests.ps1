#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.5.0' }

# The story of the module, cmdlet by cmdlet.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'A configuration' {
    It 'takes the defaults of PEFT' {
        $config = New-LoKrConfig
        $config.R | Should -Be 8
        $config.Alpha | Should -Be 8
        $config.DecomposeFactor | Should -Be -1
    }

    It 'refuses rank 0' {
        Get-ErrorId { New-LoKrConfig -R 0 } | Should -Be 'LoKr.RankInvalid'
    }

    It 'takes its fields by property name' {
        $config = [pscustomobject]@{ R = 4; Alpha = 2; TargetModules = 'query', 'value' } | New-LoKrConfig
        "$config" | Should -Be 'r 4, alpha 2 on query, value'
    }
}

Describe 'The story' {
    BeforeAll {
        $script:model = Get-Model
    }

    AfterAll {
        $model.Dispose()
    }

    It 'adds an adapter that changes nothing yet' {
        $before = $model | Measure-LoKrModel -Data $eval
        $passed = New-LoKrConfig -R 8 -Alpha 16 -TargetModules all-linear -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
        $passed | Should -Be $model
        $model.Adapters.Count | Should -Be 1
        ($model | Get-LoKrConfig).Alpha | Should -Be 16
        [math]::Abs(($model | Measure-LoKrModel -Data $eval).Loss - $before.Loss) | Should -BeLessThan 1e-5
    }

    It 'lists the adapted modules' {
        $modules = @($model | Get-LoKrModule -Adapted)
        $modules.Count | Should -BeGreaterThan 10
        $modules.Name | Should -Contain 'bert.encoder.layer.0.attention.self.query'
        @($model | Get-LoKrModule -Name *.query).Count | Should -Be 2
    }

    It 'trains' {
        $null = $model | Start-LoKrTraining -Data $train -ValidationData $eval -Epochs 3 -BatchSize 16 -LearningRate 1e-2 -WarmupRatio 0.06 -Seed 1
        $training = $model.LastTraining
        $training.StopReason | Should -Be 'Completed'
        $training.History.Count | Should -Be $training.History[-1].TotalSteps
        $training.After.Accuracy | Should -BeGreaterThan 0.6
    }

    It 'trains on objects from the pipeline' {
        $null = Get-Content -LiteralPath $train -TotalCount 32 | ConvertFrom-Json | Start-LoKrTraining -Model $model -MaxSteps 2 -BatchSize 16 -LearningRate 1e-5
        $model.LastTraining.History.Count | Should -Be 2
    }

    It 'switches, scales and disables the adapter' {
        $trained = ($model | Measure-LoKrModel -Data $eval).Loss
        $null = $model | Disable-LoKrAdapter
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -BeGreaterThan ($trained + 0.1)
        $null = $model | Enable-LoKrAdapter
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -Be $trained
        $null = $model | Set-LoKrAdapter -Name default -Scale 0.5
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -Not -Be $trained
        $null = $model | Set-LoKrAdapter -Name default -Scale 1
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -Be $trained
    }

    It 'adds a second adapter and removes it' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $null = New-LoKrConfig -R 2 -TargetModules key | Add-LoKrAdapter -Model $model -Name second
        $null = $model | Set-LoKrAdapter -Name default, second -Active
        $model.ActiveAdapters | Should -Be 'default', 'second'
        $null = $model | Remove-LoKrAdapter -Name sec*
        $null = $model | Set-LoKrAdapter -Name default -Active
        $model.Adapters.Count | Should -Be 1
        @($texts | Invoke-LoKrModel -Model $model).Score | Should -Be $answers.Score
    }

    It 'merges, and takes the merge back' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $null = $model | Merge-LoKrAdapter
        $model.MergedAdapters | Should -Be 'default'
        @($texts | Invoke-LoKrModel -Model $model).Label | Should -Be $answers.Label
        $null = $model | Undo-LoKrMerge
        @($model.MergedAdapters).Count | Should -Be 0
        @($texts | Invoke-LoKrModel -Model $model).Score | Should -Be $answers.Score
    }

    It 'exports the adapter, and imports it again' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $null = $model | Export-LoKrAdapter -Destination "$TestDrive/adapter"
        (Get-Content -Raw -LiteralPath "$TestDrive/adapter/adapter_config.json" | ConvertFrom-Json).peft_type | Should -Be 'LOKR'
        (Get-LoKrConfig -Path "$TestDrive/adapter").R | Should -Be 8
        (Get-ChildItem -LiteralPath "$TestDrive/adapter" -Filter *.safetensors | Get-LoKrAdapter).ParameterCount | Should -Be $model.Adapters[0].ParameterCount
        $other = Get-Model
        try {
            $null = $other | Import-LoKrAdapter -Path "$TestDrive/adapter"
            @($texts | Invoke-LoKrModel -Model $other).Label | Should -Be $answers.Label
        }
        finally {
            $other.Dispose()
        }
    }

    It 'exports the model, and imports it again' {
        $null = $model | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/merged"
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $other = Get-Item -LiteralPath "$TestDrive/merged" | Import-LoKrModel -Device cpu
        try {
            $again = @($texts | Invoke-LoKrModel -Model $other)
            $again.Label | Should -Be $answers.Label
            for ($i = 0; $i -lt $texts.Count; $i++) {
                [math]::Abs($again[$i].Score - $answers[$i].Score) | Should -BeLessThan 1e-4
            }
        }
        finally {
            $other.Dispose()
        }
    }

    It 'keeps what is there without -Force' {
        Get-ErrorId { $model | Export-LoKrModel -Destination "$TestDrive/merged" -ErrorAction Stop } | Should -Be 'LoKr.DestinationExists'
    }
}

Describe 'Any module of a script' {
    It 'is adapted and trained with a loss of its own' {
        $layer = [TorchSharp.torch+nn]::Linear(6, 4)
        $batches = foreach ($i in 1..4) { @{ X = [TorchSharp.torch]::randn(8, 6); Y = [TorchSharp.torch]::randn(8, 4) } }
        $model = New-LoKrConfig -R 2 -TargetModules all-linear | Add-LoKrAdapter -Model $layer
        $model = $model | Start-LoKrTraining -Batch $batches -Epochs 3 -LearningRate 0.05 -Loss {
            param($model, $batch)
            [TorchSharp.torch+nn+functional]::mse_loss($model.Module.call($batch.X), $batch.Y)
        }
        $model.LastTraining.History.Count | Should -Be 12
        $model.LastTraining.History[-1].Loss | Should -BeLessThan $model.LastTraining.History[0].Loss
    }
}

Describe 'A path' {
    It 'may be on a drive of the session' {
        $null = New-PSDrive -Name LoKrExamples -PSProvider FileSystem -Root (Join-Path $root 'examples') -Scope Global
        try {
            $model = Import-LoKrModel -Path LoKrExamples:/models/tiny-encoder -Label $labels -Device cpu -WarningAction SilentlyContinue
            ($model | Measure-LoKrModel -Data LoKrExamples:/data/tickets.eval.jsonl).RowCount | Should -Be 120
            $model.Dispose()
        }
        finally {
            Remove-PSDrive -Name LoKrExamples
        }
    }

    It 'starts at the current location' {
        Push-Location -LiteralPath (Join-Path $root 'examples/models')
        try {
            $models = @(Import-LoKrModel -Path tiny-* -Label $labels -Device cpu -WarningAction SilentlyContinue)
            $models.Count | Should -Be 1
            $models[0].SourcePath | Should -Be $encoder
        }
        finally {
            Pop-Location
        }
    }
}
