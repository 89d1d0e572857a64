#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# The story of the module, cmdlet by cmdlet.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
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
        $passed = New-LoKrConfig -R 8 -Alpha 16 -TargetModules all-linear -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1 -PassThru
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
        $model | Start-LoKrTraining -Data $train -ValidationData $eval -Epochs 3 -BatchSize 16 -LearningRate 1e-2 -WarmupRatio 0.06 -Seed 1
        $training = $model.LastTraining
        $training.StopReason | Should -Be 'Completed'
        $training.History.Count | Should -Be $training.History[-1].TotalSteps
        $training.After.Accuracy | Should -BeGreaterThan 0.6
    }

    It 'trains on objects from the pipeline' {
        Get-Content -LiteralPath $train -TotalCount 32 | ConvertFrom-Json | Start-LoKrTraining -Model $model -MaxSteps 2 -BatchSize 16 -LearningRate 1e-5 -Seed 1
        $model.LastTraining.History.Count | Should -Be 2
    }

    It 'switches, scales and disables the adapter' {
        $trained = ($model | Measure-LoKrModel -Data $eval).Loss
        $model | Disable-LoKrAdapter
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -BeGreaterThan ($trained + 0.1)
        $model | Enable-LoKrAdapter
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -Be $trained
        $model | Set-LoKrAdapter -Name default -Scale 0.5
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -Not -Be $trained
        $model | Set-LoKrAdapter -Name default -Scale 1
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -Be $trained
    }

    It 'adds a second adapter and removes it' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        New-LoKrConfig -R 2 -TargetModules key -ModulesToSave @() | Add-LoKrAdapter -Model $model -Name second -Seed 2 -WarningAction SilentlyContinue
        $model | Set-LoKrAdapter -Name default, second -Active
        $model.ActiveAdapters | Should -Be 'default', 'second'
        $model | Remove-LoKrAdapter -Name sec*
        $model | Set-LoKrAdapter -Name default -Active
        $model.Adapters.Count | Should -Be 1
        @($texts | Invoke-LoKrModel -Model $model).Score | Should -Be $answers.Score
    }

    It 'merges, and takes the merge back' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $model | Merge-LoKrAdapter
        $model.MergedAdapters | Should -Be 'default'
        @($texts | Invoke-LoKrModel -Model $model).Label | Should -Be $answers.Label
        $model | Undo-LoKrMerge
        @($model.MergedAdapters).Count | Should -Be 0
        @($texts | Invoke-LoKrModel -Model $model).Score | Should -Be $answers.Score
    }

    It 'exports the adapter, and imports it again' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $model | Export-LoKrAdapter -Destination "$TestDrive/adapter"
        (Get-Content -Raw -LiteralPath "$TestDrive/adapter/adapter_config.json" | ConvertFrom-Json).peft_type | Should -Be 'LOKR'
        (Get-LoKrConfig -Path "$TestDrive/adapter").R | Should -Be 8
        (Get-ChildItem -LiteralPath "$TestDrive/adapter" -Filter *.safetensors | Get-LoKrAdapter).ParameterCount | Should -Be $model.Adapters[0].ParameterCount
        $other = Get-Model
        try {
            $other | Import-LoKrAdapter -Path "$TestDrive/adapter"
            @($texts | Invoke-LoKrModel -Model $other).Label | Should -Be $answers.Label
        }
        finally {
            $other.Dispose()
        }
    }

    It 'exports the model, and imports it again' {
        $model | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/merged"
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

Describe 'A pipeline whose training failed' {
    BeforeEach {
        $script:model = Get-TinyModel
    }

    AfterEach {
        $model.Dispose()
    }

    It 'runs again as it stands after <Case>' -ForEach @(
        @{ Case = 'a file that does not exist'; Options = { @{ Data = "$TestDrive/none.jsonl" } }; Id = 'LoKr.PathNotFound' }
        @{ Case = 'a run that diverged'; Options = { @{ Data = $rows; MaxSteps = 20; LearningRate = 1e30; WarmupRatio = 0; Seed = 1 } }; Id = 'LoKr.*NotFinite' }
    ) {
        $options = & $Options
        foreach ($attempt in 1..2) {
            $failure = Get-Failure { New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier | Add-LoKrAdapter $model -Seed 1 | Start-LoKrTraining @options }
            ($failure.FullyQualifiedErrorId -split ',')[0] | Should -BeLike $Id
        }

        New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier | Add-LoKrAdapter $model -Seed 1 | Start-LoKrTraining $rows -MaxSteps 2 -Seed 1
        $expected = Get-TinyModel
        New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier | Add-LoKrAdapter $expected -Seed 1 | Start-LoKrTraining $rows -MaxSteps 2 -Seed 1
        $model.LastTraining.History.Loss | Should -Be $expected.LastTraining.History.Loss
        $model.ActiveAdapters | Should -Be 'default'
        $expected.Dispose()
    }

    It 'does not replace an adapter that was trained, or one of another configuration' {
        New-LoKrConfig -R 2 -TargetModules query | Add-LoKrAdapter $model
        Get-ErrorId { New-LoKrConfig -R 3 -TargetModules query | Add-LoKrAdapter $model } | Should -Be 'LoKr.AdapterExists'
        $model | Start-LoKrTraining $rows -MaxSteps 1
        Get-ErrorId { New-LoKrConfig -R 2 -TargetModules query | Add-LoKrAdapter $model } | Should -Be 'LoKr.AdapterExists'
    }
}

Describe '-Verbose' {
    It 'says everything once' {
        $model = Get-TinyModel
        $sentence = {
            New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier |
                Add-LoKrAdapter $model -Verbose |
                Start-LoKrTraining $rows -MaxSteps 2 -Verbose |
                Export-LoKrAdapter -Destination "$TestDrive/verbose" -Verbose |
                Set-LoKrAdapter default -Scale 2 -Verbose |
                Merge-LoKrAdapter -Verbose |
                Export-LoKrModel -Destination "$TestDrive/verbose-merged" -Verbose
        }
        $lines = @(& $sentence 4>&1 | ForEach-Object { "$_" })
        $lines.Count | Should -BeGreaterThan 8
        $lines | Group-Object | Where-Object Count -GT 1 | ForEach-Object Name | Should -BeNullOrEmpty
        @($lines -like '*Train adapter*').Count | Should -Be 1
        $model.Dispose()
    }
}

Describe 'Any module of a script' {
    It 'is adapted and trained with a loss of its own' {
        $null = [TorchSharp.torch]::manual_seed(1)
        $layer = [TorchSharp.torch+nn]::Linear(6, 4)
        $batches = foreach ($i in 1..4) { @{ X = [TorchSharp.torch]::randn(8, 6); Y = [TorchSharp.torch]::randn(8, 4) } }
        $model = New-LoKrConfig -R 2 -TargetModules all-linear | Add-LoKrAdapter -Model $layer -Seed 1 -PassThru
        $model | Start-LoKrTraining -Batch $batches -Epochs 8 -LearningRate 0.05 -Seed 1 -Loss {
            param($model, $batch)
            [TorchSharp.torch+nn+functional]::mse_loss($model.Module.call($batch.X), $batch.Y)
        }
        $history = $model.LastTraining.History
        $history.Count | Should -Be 32
        ($history[-4..-1].Loss | Measure-Object -Average).Average | Should -BeLessThan ($history[0..3].Loss | Measure-Object -Average).Average
    }
}

Describe 'The pipeline of the readme' {
    It 'trains, merges and exports a model that answers alike' {
        $model = Get-TinyModel
        $output = New-LoKrConfig -R 8 -Alpha 16 -TargetModules query, value |
            Add-LoKrAdapter -Model $model -Seed 1 |
            Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -Epochs 15 -BatchSize 8 -LearningRate 2e-2 -Seed 1 |
            Merge-LoKrAdapter |
            Export-LoKrModel -Destination "$TestDrive/merged"
        $output | Should -BeNullOrEmpty
        $model.MergedAdapters | Should -Be 'default'
        $model.LastTraining.History.Count | Should -Be (15 * 12)
        $model.LastTraining.After.Accuracy | Should -BeGreaterThan 0.7

        $merged = $model | Measure-LoKrModel -Data $rowsToMeasure
        $copy = Import-LoKrModel -Path "$TestDrive/merged"
        $exported = $copy | Measure-LoKrModel -Data $rowsToMeasure
        [math]::Abs($merged.Loss - $model.LastTraining.After.Loss) | Should -BeLessThan 1e-4
        [math]::Abs($exported.Loss - $merged.Loss) | Should -BeLessThan 1e-6
        $exported.Accuracy | Should -Be $merged.Accuracy
        $copy.Dispose()
        $model.Dispose()
    }
}

Describe 'A tiny model' {
    BeforeEach {
        $script:model = Get-AdaptedTinyModel
    }

    AfterEach {
        $model.Dispose()
    }

    It 'classifies texts in their order, whatever the batch' {
        $texts = 'vpn is slow', '', 'my invoice', 'login'
        $one = @($texts | Invoke-LoKrModel -Model $model -BatchSize 1)
        $many = @($texts | Invoke-LoKrModel -Model $model)
        $many.Text | Should -Be $texts
        $many.Label | Should -Be $one.Label
        for ($i = 0; $i -lt $texts.Count; $i++) {
            $one[$i].Scores.Keys | Should -Be 'network', 'access', 'billing'
            [math]::Abs(($one[$i].Scores.Values | Measure-Object -Sum).Sum - 1) | Should -BeLessThan 1e-6
            [math]::Abs($one[$i].Score - $many[$i].Score) | Should -BeLessThan 1e-5
        }
    }

    It 'classifies objects with a text' {
        ([pscustomobject] @{ Text = 'vpn'; Id = 1 } | Invoke-LoKrModel -Model $model).Text | Should -Be 'vpn'
        @(@{ text = 'vpn' }, [pscustomobject] @{ Prompt = 'card' }, [ordered] @{ PROMPT = 'pin' }, 7 | Invoke-LoKrModel -Model $model).Text | Should -Be 'vpn', 'card', 'pin', '7'
        (Invoke-LoKrModel $model -Text 'vpn').Text | Should -Be 'vpn'
        (Invoke-LoKrModel $model '').Text | Should -Be ''
    }

    It 'refuses objects without a text, and goes on with the next' {
        foreach ($item in (Get-Process -Id $PID), @{ Name = 'vpn' }, [pscustomobject] @{ Text = $null }, [datetime]::Now, [pscustomobject] @{ Text = @{} }) {
            Get-ErrorId { $item | Invoke-LoKrModel -Model $model } | Should -Be 'LoKr.DataValueInvalid'
        }

        @(@{ Name = 'x' }, 'vpn' | Invoke-LoKrModel -Model $model -ErrorAction SilentlyContinue).Text | Should -Be 'vpn'
    }

    It 'counts texts that are cut, once a call' {
        $long = 'vpn ' * 40
        $null = $long, 'vpn', $long | Invoke-LoKrModel -Model $model -BatchSize 1 -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Be '2 texts are cut to 32 tokens; the longest has 42.'
        $null = $long | Invoke-LoKrModel -Model $model -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Be 'The text has 42 tokens; the first 32 are used.'
        $null = $model | Measure-LoKrModel -Data @{ text = $long; label = 'network' } -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Be '1 of 1 texts are cut to 32 tokens; the longest has 42.'
    }

    It 'gives a trained adapter to a fresh model' {
        $model | Start-LoKrTraining -Data $rows -MaxSteps 10 -LearningRate 2e-2 -Seed 1 | Export-LoKrAdapter -Destination "$TestDrive/saved"
        $fresh = Import-LoKrModel -Path $tiny -Label network, access, billing -Seed 9 -WarningAction SilentlyContinue
        $fresh | Import-LoKrAdapter -Path "$TestDrive/saved" -Name again
        [math]::Abs((Get-Loss $fresh) - (Get-Loss $model)) | Should -BeLessThan 1e-6
        $fresh.ActiveAdapters | Should -Be 'again'
        $fresh.Adapters[0].IsTrainable | Should -BeFalse
        $fresh.Adapters[0].Config.BaseModelNameOrPath | Should -Be (Split-Path -Path $model.SourcePath -Leaf)
        $fresh.Dispose()
        $model | Import-LoKrAdapter -Path "$TestDrive/sav*" -Name b -Trainable
        $model.GetAdapter('b').IsTrainable | Should -BeTrue
    }

    It 'is merged by pattern, and unmerged to the same loss' {
        $model | Start-LoKrTraining -Data $rows -MaxSteps 5 -Seed 1
        $before = Get-Loss $model
        $passed, $verbose = $model | Merge-LoKrAdapter -Name d* -Safe -Verbose 4>&1 | Sort-Object { $_ -is [System.Management.Automation.VerboseRecord] }
        $passed | Should -Be $model
        "$verbose" | Should -Match '4 weights'
        $model.LastMerge.ModuleCount | Should -Be 4
        Get-ErrorId { $model | Merge-LoKrAdapter } | Should -Be 'LoKr.NothingToMerge'
        $model | Undo-LoKrMerge | Should -Be $model
        [math]::Abs((Get-Loss $model) - $before) | Should -BeLessThan 1e-9
        Get-ErrorId { $model | Undo-LoKrMerge } | Should -Be 'LoKr.NothingToMerge'
    }

    It 'lists its modules by name, type and adapter' {
        @($model | Get-LoKrModule -Name *.query, *.VALUE).Count | Should -Be 4
        @($model | Get-LoKrModule -Adapted).Count | Should -Be 5
        $model | Get-LoKrModule -Type Emb* | ForEach-Object ModuleType | Sort-Object -Unique | Should -Be 'Embedding'
        $query = $model | Get-LoKrModule -Name *.0.attention.self.query
        $query.Shape | Should -Be 16, 16
        $query.Adapters | Should -Be 'default'
        $model | Get-LoKrModule -Name nothing | Should -BeNullOrEmpty
    }

    It 'is exported in shards' {
        $folder = $model | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/sharded" -MaxShardSize 4KB -PassThru
        $folder.GetFiles('*.safetensors').Count | Should -BeGreaterThan 2
        "$TestDrive/sharded/model.safetensors.index.json" | Should -Exist
        (Import-LoKrModel -Path "$TestDrive/sharded").Dispose()
    }

    It 'has weights of the type asked for' {
        $half = Import-LoKrModel -Path $tiny -Label a, b -DType bfloat16 -WarningAction SilentlyContinue
        $half.DType | Should -Be 'BFloat16'
        $half.Dispose()
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

Describe 'A new head' {
    BeforeAll {
        $script:model = Get-TinyModel
    }

    AfterAll {
        $model.Dispose()
    }

    It 'is trained and saved by default, so that the adapter is worth the same after an import' {
        New-LoKrConfig -R 8 | Add-LoKrAdapter $model -Seed 1 |
            Start-LoKrTraining -Data $rows -Epochs 10 -BatchSize 8 -LearningRate 2e-2 -Seed 1 |
            Export-LoKrAdapter -Destination "$TestDrive/adapter" -WarningVariable warnings
        $warnings | Should -BeNullOrEmpty
        $config = Get-Content -LiteralPath "$TestDrive/adapter/adapter_config.json" -Raw | ConvertFrom-Json
        $config.task_type, $config.modules_to_save | Should -Be 'SEQ_CLS', @('classifier', 'score')
        $script:accuracy = ($model | Measure-LoKrModel -Data $rowsToMeasure).Accuracy
        $accuracy | Should -BeGreaterThan 0.6
        $again = Import-LoKrModel -LiteralPath $tiny -Label network, access, billing -Seed 2 -WarningAction SilentlyContinue
        $again.FreshModules | Should -Be 'classifier'
        $again | Import-LoKrAdapter "$TestDrive/adapter" -WarningVariable warnings
        $warnings | Should -BeNullOrEmpty
        ($again | Measure-LoKrModel -Data $rowsToMeasure).Accuracy | Should -Be $accuracy
        $again.Dispose()
    }

    It 'that is declined is warned about by every cmdlet that would lose it' {
        $options = @{ WarningVariable = 'warnings'; WarningAction = 'SilentlyContinue' }
        New-LoKrConfig -R 2 -ModulesToSave @() | Add-LoKrAdapter $model -Name declined @options
        "$warnings" | Should -BeLike "Adapter 'declined' does not save classifier.*"
        $expected = "$warnings"
        $model.GetAdapter('declined').UnsavedModules | Should -Be 'classifier'
        $model | Start-LoKrTraining -Data $rows -MaxSteps 1 -AdapterName declined @options
        "$warnings" | Should -Be $expected
        $model | Export-LoKrAdapter -Destination "$TestDrive/declined" -Name declined @options
        "$warnings" | Should -Be $expected
        $model | Export-LoKrAdapter -Destination "$TestDrive/lora" -Name declined -LoraRank 2 @options
        "$warnings" | Should -Be $expected
        $model | Import-LoKrAdapter "$TestDrive/declined" -Name again @options
        "$warnings" | Should -Be $expected.Replace('declined', 'again')
    }

    It 'has the labels of the adapter with -LabelFrom, and others are refused' {
        $again = Import-LoKrModel -LiteralPath $tiny -LabelFrom "$TestDrive/adapter" -WarningAction SilentlyContinue
        ($again | Import-LoKrAdapter "$TestDrive/adapter" | Measure-LoKrModel -Data $rowsToMeasure).Accuracy | Should -Be $accuracy
        $again.Dispose()
        $other = Import-LoKrModel -LiteralPath $tiny -Label access, network, billing -WarningAction SilentlyContinue
        $failure = Get-Failure { $other | Import-LoKrAdapter "$TestDrive/adapter" }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.LabelsMismatch,*'
        "$failure $($failure.ErrorDetails.RecommendedAction)" | Should -Match 'network, access, billing.*-LabelFrom'
        $other.Adapters.Count | Should -Be 0
        $other.Dispose()
        Get-ErrorId { Import-LoKrModel -LiteralPath $tiny -Label a, b, c -LabelFrom "$TestDrive/adapter" -ErrorAction Stop } | Should -Be 'LoKr.InvalidArgument'
        $plain = New-Item -ItemType Directory -Path "$TestDrive/plain"
        $llama = Import-LoKrModel -Path ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/llama"))
        New-LoKrConfig | Add-LoKrAdapter $llama | Export-LoKrAdapter -Destination "$plain/adapter"
        $llama.Dispose()
        Get-ErrorId { Import-LoKrModel -LiteralPath $tiny -LabelFrom "$plain/adapter" -ErrorAction Stop } | Should -Be 'LoKr.AdapterLabelsMissing'
    }
}
