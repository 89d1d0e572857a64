#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Start-LoKrTraining: data, streams, stopping, memory.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # Runs a script in a runspace of its own, with variables, and hands back its shell when it has ended.
    function Invoke-Beside([string] $Script, [hashtable] $Variable) {
        $shell = [powershell]::Create([System.Management.Automation.RunspaceMode]::NewRunspace)
        $shell.Runspace.SessionStateProxy.SetVariable('manifest', $manifest)
        foreach ($name in $Variable.Keys) {
            $shell.Runspace.SessionStateProxy.SetVariable($name, $Variable[$name])
        }

        $null = $shell.AddScript("Import-Module -Name `$manifest`n$Script").Invoke()
        $shell.Streams.Error | Should -BeNullOrEmpty
        $shell
    }

    # Live tensors once the finalizer has taken what other tests dropped.
    function Get-TensorCount {
        [System.GC]::Collect()
        [System.GC]::WaitForPendingFinalizers()
        [TorchSharp.torch+Tensor]::TotalCount
    }

    function Test-Stopped {
        $model.LastTraining.StopReason | Should -Be 'Canceled'
        $model.LastTraining.History.Count | Should -BeGreaterThan 0
        $model.LastTraining.History.Count | Should -BeLessThan 5000
    }
}

Describe 'A training' {
    BeforeEach {
        $script:model = Get-AdaptedTinyModel
    }

    AfterEach {
        $model.Dispose()
    }

    It 'shows progress now and then, counts down, and ends it' {
        $shell = Invoke-Beside '$model | Start-LoKrTraining -Data $rows -ValidationData $more -Epochs 8' @{ model = $model; rows = $rows; more = $rowsToMeasure }
        $shown = @($shell.Streams.Progress | Where-Object { $_.RecordType -eq 'Processing' -and $_.Activity -like 'Training*' })
        $shown.Count | Should -BeGreaterThan 0
        $shown.Count | Should -BeLessOrEqual (3 + $model.LastTraining.Elapsed.TotalMilliseconds / 200)
        foreach ($record in $shown) {
            $record.SecondsRemaining | Should -BeGreaterOrEqual -1
            $record.PercentComplete | Should -BeIn (-1..100)
        }

        $shell.Streams.Progress[-1].RecordType | Should -Be 'Completed'
        $evaluations = @($shell.Streams.Information | Where-Object Tags -Contain 'Evaluation')
        $evaluations.Count | Should -Be 8
        "$($evaluations[0])" | Should -Match '^Step \d+ of \d+: evaluation loss \d.*, accuracy \d'
        $shell.Dispose()
    }

    It 'passes steps on in place of the model with -ReportStep' {
        $steps = @($model | Start-LoKrTraining -Data $rows -Epochs 2 -ReportStep)
        $steps.Count | Should -BeGreaterThan 1
        $steps.Step | Should -Be $model.LastTraining.History.Step
        $steps.Loss | Should -Be $model.LastTraining.History.Loss
    }

    It 'takes rows of the pipeline like the rows of a file' {
        Set-Content -LiteralPath "$TestDrive/two.jsonl" -Value '{"text": "vpn slow", "label": "network"}', '{"text": "card", "label": "billing"}'
        $model | Start-LoKrTraining -Data "$TestDrive/two.jsonl" -MaxSteps 1 -Seed 4
        $other = Get-AdaptedTinyModel
        [pscustomobject] @{ text = 'vpn slow'; label = 'network' }, @{ text = 'card'; label = 'billing' } |
            Start-LoKrTraining -Model $other -MaxSteps 1 -Seed 4
        [math]::Abs($other.LastTraining.History[0].Loss - $model.LastTraining.History[0].Loss) | Should -BeLessThan 1e-6
        $other.Dispose()
    }

    It 'measures before and after' {
        $before = Get-Loss $model
        $model | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -EvaluateBefore -MaxSteps 5
        [math]::Abs($model.LastTraining.Before.Loss - $before) | Should -BeLessThan 1e-6
        [math]::Abs($model.LastTraining.After.Loss - ($model | Measure-LoKrModel -Data $rowsToMeasure -BatchSize 5).Loss) | Should -BeLessThan 1e-5
    }

    It 'says which settings of evaluations have no effect without data for them' {
        $model | Start-LoKrTraining -Data $rows -EvaluateEvery 1 -EvaluateBefore -MaxSteps 1 -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Be 'EvaluateEvery has no effect without validation data. EvaluateBefore has no effect without validation data.'
    }

    It 'stops with its pipeline, at once' {
        $shell = [powershell]::Create([System.Management.Automation.RunspaceMode]::NewRunspace)
        $null = $shell.AddScript('param($manifest, $model, $rows) Import-Module -Name $manifest; $model | Start-LoKrTraining -Data $rows -MaxSteps 100000 -ReportStep')
        $null = $shell.AddArgument($manifest).AddArgument($model).AddArgument($rows)
        $output = [System.Management.Automation.PSDataCollection[psobject]]::new()
        $null = $shell.BeginInvoke([System.Management.Automation.PSDataCollection[psobject]]::new(), $output)
        for ($i = 0; $i -lt 600 -and $output.Count -lt 5; $i++) {
            Start-Sleep -Milliseconds 100
        }

        $output.Count | Should -BeGreaterOrEqual 5
        $watch = [System.Diagnostics.Stopwatch]::StartNew()
        $shell.Stop()
        $shell.InvocationStateInfo.State | Should -Be 'Stopped'
        $watch.Elapsed.TotalSeconds | Should -BeLessThan 10
        Test-Stopped
        $shell.Dispose()
    }

    It 'stops when a command downstream leaves the loop around it, and can start again' {
        $steps = foreach ($once in 1) {
            $model | Start-LoKrTraining -Data $rows -MaxSteps 100000 -ReportStep | ForEach-Object {
                $_
                if ($_.Step -eq 3) {
                    break
                }
            }
        }
        $steps.Step | Should -Be 1, 2, 3
        $once | Should -Be 1
        Test-Stopped
        $model | Start-LoKrTraining -Data $rows -MaxSteps 3
        $model.LastTraining.StopReason | Should -Be 'Completed'
        $model.LastTraining.History.Count | Should -Be 3
    }

    It 'stops when a command downstream fails' {
        { $model | Start-LoKrTraining -Data $rows -MaxSteps 100000 -ReportStep | ForEach-Object { throw 'enough' } } | Should -Throw 'enough'
        Test-Stopped
    }

    It 'has as many live tensors after twenty steps as after two' {
        $batches = @(1) * 20
        $ids = [TorchSharp.torch]::tensor([long[]] (2, 5, 6, 3)).reshape(1, 4)
        $mask = [TorchSharp.torch]::ones_like($ids)
        $label = [TorchSharp.torch]::tensor([long[]] 1)
        $null = Get-TensorCount
        $counts = @($model | Start-LoKrTraining -Batch $batches -MaxSteps 22 -ReportStep -Loss {
                param($model)
                [TorchSharp.torch+nn+functional]::cross_entropy($model.Module.Classify($ids, $mask), $label)
            } | ForEach-Object { [TorchSharp.torch+Tensor]::TotalCount })
        $counts.Count | Should -Be 22
        foreach ($count in $counts[2..21]) {
            $count | Should -BeLessOrEqual $counts[1]
        }
    }

    It 'leaves no tensor behind' {
        $model | Start-LoKrTraining -Data $rows -MaxSteps 2
        $before = Get-TensorCount
        $model | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MaxSteps 20
        Get-TensorCount | Should -Be $before
    }

    It 'that diverges ends with an error, leaves its steps, and a finite adapter' {
        Get-ErrorId { $model | Start-LoKrTraining -Data $rows -MaxSteps 20 -LearningRate 1e30 -WarmupRatio 0 -Seed 1 } | Should -Be 'LoKr.LossNotFinite'
        $model.LastTraining.StopReason | Should -Be 'Diverged'
        $model.LastTraining.History.Count | Should -BeGreaterThan 0
        [double]::IsFinite((Get-Loss $model)) | Should -BeTrue
    }

    It 'says that a new head has a learning rate of its own, and takes another' {
        $model | Start-LoKrTraining -Data $rows -MaxSteps 2 -LearningRate 1e-3 -WarmupRatio 0 -InformationVariable told -InformationAction SilentlyContinue
        @($told | Where-Object Tags -Contain 'HeadLearningRate').Count | Should -Be 1
        "$told" | Should -Match 'classifier.*0\.01: 10 times'
        $model.LastTraining.HeadLearningRate | Should -Be 0.01
        $model.LastTraining.History[0].HeadLearningRate | Should -Be 0.01

        # The head is trained now.
        $model | Start-LoKrTraining -Data $rows -MaxSteps 1 -InformationVariable told -InformationAction SilentlyContinue
        @($told | Where-Object Tags -Contain 'HeadLearningRate').Count | Should -Be 0
        $model.LastTraining.HeadLearningRate | Should -BeNullOrEmpty
        $model | Start-LoKrTraining -Data $rows -MaxSteps 1 -LearningRate 1e-3 -HeadLearningRate 2e-3 -RunPath "$TestDrive/head"
        $model.LastTraining.HeadLearningRate | Should -Be 0.002
        (Get-LoKrRun "$TestDrive/head").HeadLearningRate | Should -Be 0.002
        (Get-Content -LiteralPath "$TestDrive/head/log.jsonl" | ConvertFrom-Json).headLearningRate | Should -Be 0.002
        Get-ErrorId { $model | Start-LoKrTraining -Data $rows -HeadLearningRate 0 } | Should -Be 'LoKr.TrainingOptionInvalid'
    }

    It 'prints its plan with -WhatIf' {
        $text = pwsh -NoProfile -NonInteractive -Command @"
            Import-Module -Name '$manifest'
            `$model = Import-LoKrModel -Path '$tiny' -Label network, access, billing -WarningAction SilentlyContinue
            New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter -Model `$model
            `$model | Start-LoKrTraining -Data '$rows' -Epochs 5 -BatchSize 8 -WarmupRatio 0.1 -WhatIf
            `$fresh = Import-LoKrModel -Path '$tiny' -Label network, access, billing -WarningAction SilentlyContinue
            New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter -Model `$fresh -WhatIf |
                Start-LoKrTraining -Data '$rows' -Epochs 5 -BatchSize 8 -WarmupRatio 0.1 -WhatIf
"@ | Out-String
        # Of the adapter that is there, and of the one whose addition is rehearsed too.
        [regex]::Matches($text, 'What if: Train adapter').Count | Should -Be 2
        $text | Should -Match '60 steps \(12 an epoch, 6 warm-up\) at a learning rate of 0\.001, 0\.01 for the head \(classifier\), on 96 rows'
        $text | Should -Match "$($model.Adapters[0].ParameterCount) parameters"
        $text | Should -Match 'MiB'
    }
}

Describe 'A loss of the script' {
    BeforeEach {
        $script:net = [TorchSharp.torch+nn]::Linear(6, 4)
        $net | Add-LoKrAdapter -Config (New-LoKrConfig -R 2 -TargetModules all-linear) -Seed 1
    }

    It 'is a tensor' {
        Get-ErrorId { $net | Start-LoKrTraining -Batch 1 -Loss { 'x' } } | Should -Be 'LoKr.LossNotATensor'
        Get-ErrorId { $net | Start-LoKrTraining -Batch 1 -Loss { } } | Should -Be 'LoKr.LossNotATensor'
    }

    It 'fails with its own error' {
        { $net | Start-LoKrTraining -Batch 1 -Loss { throw 'mine' } } | Should -Throw 'mine'
        { $net | Start-LoKrTraining -Batch 1 -Loss { [TorchSharp.torch]::zeros(2, 3).mm([TorchSharp.torch]::zeros(2, 3)) } } | Should -Throw '*mat1 and mat2*'
    }
}

Describe 'A language model' {
    It 'is trained, measured and asked' {
        $data = [LoKr.Testing.TinyData]::WriteCompletions("$TestDrive/pairs.jsonl", 20)
        $model = Import-LoKrModel -Path ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/llama"))
        $before = $model | Measure-LoKrModel -Data $data
        $model | Add-LoKrAdapter -Config (New-LoKrConfig -R 4 -TargetModules all-linear) -Seed 1 |
            Start-LoKrTraining -Data $data -Epochs 10 -LearningRate 2e-2 -Seed 1
        ($model | Measure-LoKrModel -Data $data).Perplexity | Should -BeLessThan ($before.Perplexity / 2)
        $greedy = @('vpn: ', 'card: ' | Invoke-LoKrModel -Model $model -MaxNewTokens 5)
        $greedy.Prompt | Should -Be 'vpn: ', 'card: '
        $sampling = @{ Model = $model; MaxNewTokens = 5; Temperature = 1; TopK = 20; TopP = 0.9; Seed = 3 }
        $sampled = @(1..2 | ForEach-Object { 'vpn: ' | Invoke-LoKrModel @sampling })
        $sampled[0].Completion | Should -Be $sampled[1].Completion
        foreach ($completion in $greedy + $sampled) {
            $completion.TokenCount | Should -BeIn (0..5)
        }

        $model.Dispose()
    }
}

Describe 'Packed rows' {
    It 'are trained in fewer steps, with the loss of rows in lines of their own' {
        $data = [LoKr.Testing.TinyData]::WriteCompletions("$TestDrive/packed.jsonl", 20)
        $model = Import-LoKrModel -Path ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/packed"))
        $model | Add-LoKrAdapter -Config (New-LoKrConfig -R 4 -TargetModules all-linear -InitWeights Random) -Seed 1
        $losses = foreach ($packing in $false, $true) {
            ($model | Start-LoKrTraining -Data $data -MaxLength 64 -BatchSize 20 -MaxSteps 1 -LearningRate 1e-12 -Seed 1 -Packing:$packing -ReportStep).Loss
        }

        [Math]::Abs($losses[0] - $losses[1]) | Should -BeLessThan 1e-4
        $model | Start-LoKrTraining -Data $data -MaxLength 64 -BatchSize 1 -Epochs 1 -Seed 1 -Packing
        $model.LastTraining.History.Count | Should -BeLessOrEqual 10
        $model.LastTraining.History[-1].TokensPerSecond | Should -BeGreaterThan 0
        $model.Dispose()
    }

    It 'are those of a language model' {
        $model = Get-AdaptedTinyModel
        Get-ErrorId { $model | Start-LoKrTraining -Data $rows -Packing -MaxSteps 1 } | Should -Be 'LoKr.TrainingOptionInvalid'
        $model.Dispose()
    }
}

Describe 'A training of several labels at once, or of a number' {
    It 'takes lists, says what they mean, and answers with every label above one half' {
        $bert = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/several")
        $model = Import-LoKrModel $bert -Label network, account, billing -Seed 1 -WarningAction SilentlyContinue
        New-LoKrConfig -R 2 | Add-LoKrAdapter $model -WarningAction SilentlyContinue
        $several = @{ text = 'vpn slow login'; label = 'network', 'account' }, @{ text = 'refund card'; label = , 'billing' }, [pscustomobject] @{ text = 'the'; label = @() }
        $model | Start-LoKrTraining -Data $several -MaxSteps 2 -WarningVariable said -WarningAction SilentlyContinue
        "$said" | Should -BeLike '*multi_label_classification*'
        $answer = Invoke-LoKrModel $model 'vpn slow login'
        $answer.Labels | Should -Be @($answer.Scores.GetEnumerator() | Where-Object Value -GT 0.5 | ForEach-Object Key)
        ($model | Measure-LoKrModel -Data $several).Accuracy | Should -BeIn 0.0, (1 / 3), (2 / 3), 1.0
        $model.Dispose()
    }

    It 'takes numbers for one label' {
        $bert = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/number")
        $model = Import-LoKrModel $bert -Label urgency -Seed 1 -WarningAction SilentlyContinue
        New-LoKrConfig -R 2 | Add-LoKrAdapter $model -WarningAction SilentlyContinue
        $model | Start-LoKrTraining -Data @{ text = 'vpn slow'; label = 0.9 }, @{ text = 'the price'; label = -1 } -MaxSteps 2 -WarningVariable said -WarningAction SilentlyContinue
        "$said" | Should -BeLike '*regression*'
        ($model | Measure-LoKrModel -Data @{ text = 'vpn slow'; label = 0.9 }).Accuracy | Should -BeNullOrEmpty
        $model.Dispose()
    }
}
