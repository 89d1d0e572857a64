#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Training beside the prompt: jobs, threads, several runspaces, and pipelines that stop.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'Stopping' {
    BeforeAll {
        $script:model = Get-AdaptedModel
    }

    AfterAll {
        $model.Dispose()
    }

    It 'ends training when a command downstream has enough' {
        $steps = @($model | Start-LoKrTraining -Data $train -Epochs 1000 -ReportStep | Select-Object -First 3)
        $steps.Count | Should -Be 3
        $model.LastTraining.StopReason | Should -Be 'Canceled'
        $model.LastTraining.History.Count | Should -BeLessThan 1000
    }

    It 'ends training with a loss of its own when a command downstream has enough' {
        $ids = [TorchSharp.torch]::tensor([long[]] (2, 5, 6, 3)).reshape(1, 4)
        $mask = [TorchSharp.torch]::ones_like($ids)
        $answer = [TorchSharp.torch]::tensor([long[]] 1)
        $steps = @($model | Start-LoKrTraining -Batch 1 -MaxSteps 1000 -ReportStep -RunPath "$TestDrive/loss" -Loss {
                [TorchSharp.torch+nn+functional]::cross_entropy($model.Module.Classify($ids, $mask), $answer)
            } | Select-Object -First 3)
        $steps.Count | Should -Be 3
        $model.LastTraining.StopReason | Should -Be 'Canceled'
        $model.LastTraining.History.Count | Should -Be 3
        (Get-LoKrRun "$TestDrive/loss").State | Should -Be 'Interrupted'
        (Get-LoKrRun "$TestDrive/loss").Step | Should -Be 3
    }

    It 'ends training with its thread job' {
        $job = Start-ThreadJob -ScriptBlock {
            Import-Module -Name $using:manifest
            $using:model | Start-LoKrTraining -Data $using:train -Epochs 100000
        }
        try {
            for ($i = 0; $i -lt 300 -and -not ($job.Progress.Count -gt 0 -and $job.Progress[-1].StatusDescription -match 'loss'); $i++) {
                Start-Sleep -Milliseconds 100
            }

            $job.State | Should -Be 'Running'
            $job.Progress[-1].Activity | Should -BeLike 'Training*'
            $watch = [System.Diagnostics.Stopwatch]::StartNew()
            Stop-Job -Job $job
            $job.State | Should -Be 'Stopped'
            $watch.Elapsed.TotalSeconds | Should -BeLessThan 10
            $model.LastTraining.StopReason | Should -Be 'Canceled'
        }
        finally {
            Remove-Job -Job $job -Force
        }
    }
}

Describe 'A job of another process' {
    It 'hands back figures with their views' {
        $job = Start-Job -ScriptBlock {
            Import-Module -Name $using:manifest
            $model = Import-LoKrModel -Path $using:encoder -Label $using:labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
            New-LoKrConfig -R 4 -Alpha 8 -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
            $model | Start-LoKrTraining -Data $using:train -MaxSteps 2 -Seed 1
            $model
            $model.LastTraining
        }
        $copy, $training = $job | Receive-Job -Wait -AutoRemoveJob
        Get-Display $copy | Should -Match 'BertForSequenceClassification float32 +cpu +\S+ +\S+ default'
        Get-Display $training | Should -Match 'Steps +: 2'
        $training.History.Count | Should -Be 2
    }
}

Describe 'A job of -AsJob' {
    BeforeAll {
        $script:model = Get-AdaptedTinyModel
        $script:config = New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModulesToSave classifier
        $script:request = @{ Data = $rows; Path = $tiny; Label = 'network', 'access', 'billing'; Seed = 1; WarningAction = 'SilentlyContinue' }

        function Complete-Job([System.Management.Automation.Job] $Job) {
            try {
                $null = Wait-Job -Job $Job -Timeout 300
                $Job.State
                Receive-Job -Job $Job -ErrorAction SilentlyContinue -ErrorVariable script:problems
            }
            finally {
                Remove-Job -Job $Job -Force
            }
        }
    }

    AfterAll {
        $model.Dispose()
    }

    It 'trains as this process does: steps and figures come back, and the adapter is in the run folder' {
        $job = $config | Start-LoKrTraining @request -ValidationData $rowsToMeasure -MaxSteps 3 -ReportStep -CheckpointEvery 2 -RunPath "$TestDrive/run" -AsJob
        $job | Should -BeOfType System.Management.Automation.Job
        Get-Job -Id $job.Id | Should -Be $job
        $null = Wait-Job -Job $job -Timeout 300
        @($job.ChildJobs[0].Progress.ReadAll()).Activity | Should -Contain 'Training BertForSequenceClassification'
        @(@($job.ChildJobs[0].Information.ReadAll()).MessageData -like 'Step 3 of 3: evaluation loss *').Count | Should -Be 1
        $state, $results = Complete-Job $job
        $state | Should -Be 'Completed'
        $results.Count | Should -Be 4
        $results[0..2].Step | Should -Be 1, 2, 3
        Get-Display $results[3] | Should -Match 'Steps +: 3'

        $same = Import-LoKrModel -LiteralPath $tiny -Label $request.Label -Seed 1 -WarningAction SilentlyContinue
        $config | Add-LoKrAdapter -Model $same -Seed 1 | Start-LoKrTraining $rows -ValidationData $rowsToMeasure -MaxSteps 3 -Seed 1
        $results[3].History.Loss | Should -Be $same.LastTraining.History.Loss
        $results[3].After.Loss | Should -Be $same.LastTraining.After.Loss
        (Get-LoKrRun "$TestDrive/run").State | Should -Be 'Completed'
        (Compare-LoKrAdapter "$TestDrive/run/adapter" default -Model $same).RelativeDistance | Should -Be 0
        $same.Dispose()
    }

    It 'ends with a checkpoint at Stop-Job, and the process with it' {
        $job = $config | Start-LoKrTraining @request -Epochs 1000000 -RunPath "$TestDrive/stopped" -AsJob
        try {
            $progress = $job.ChildJobs[0].Progress
            for ($i = 0; $i -lt 3000 -and $job.State -eq 'Running' -and -not ($progress.Count -gt 0 -and $progress[$progress.Count - 1].StatusDescription -match 'loss'); $i++) {
                Start-Sleep -Milliseconds 100
            }

            $job.State | Should -Be 'Running'
            $process = Get-Process -Id (Get-LoKrRun "$TestDrive/stopped").ProcessId
            $process.Id | Should -Not -Be $PID
            Stop-Job -Job $job
            $job.State | Should -Be 'Stopped'
            $process.WaitForExit(60000) | Should -BeTrue
        }
        finally {
            Remove-Job -Job $job -Force
        }

        $run = Get-LoKrRun "$TestDrive/stopped"
        $run.State | Should -Be 'Interrupted'
        $run.CheckpointStep | Should -BeGreaterThan 0
    }

    It 'fails with the id of the error' {
        $state = Complete-Job ($config | Start-LoKrTraining @request -BatchSize 0 -AsJob)
        $state | Should -Be 'Failed'
        ($problems[0].FullyQualifiedErrorId -split ',')[0] | Should -Be 'LoKr.TrainingOptionInvalid'
    }

    It 'starts where the session is, with the rows and files that the line names' {
        Push-Location -LiteralPath $TestDrive
        $state, $result = Complete-Job ($config | Start-LoKrTraining @request -MaxSteps 1 -ValidationData (Get-Item 'eval.jsonl'), @{ text = 'vpn'; label = 'network' } -Threads 1 -AsJob)
        Pop-Location
        $state | Should -Be 'Completed'
        $result.After.RowCount | Should -Be 25
    }

    It 'merges folders as this process does' {
        $model | Start-LoKrTraining $rows -MaxSteps 1 -Seed 1
        $model | Export-LoKrAdapter -Destination "$TestDrive/adapter [1]"
        Merge-LoKrAdapter -LiteralPath $tiny -Adapter "$TestDrive/adapter [1]" -Destination "$TestDrive/here" -WarningAction SilentlyContinue
        Push-Location -LiteralPath $TestDrive
        $state, $result = Complete-Job (Merge-LoKrAdapter -LiteralPath bert -Adapter 'adapter [1]' -Destination there -Weight 1 -AsJob)
        Pop-Location
        $state | Should -Be 'Completed'
        $result.Destination | Should -Be (Join-Path $TestDrive 'there')
        Get-Display $result | Should -Match '\d'
        (Get-FileHash "$TestDrive/there/*.safetensors").Hash | Should -Be (Get-FileHash "$TestDrive/here/*.safetensors").Hash
    }

    It 'is refused for <Case>, which is in the memory of this process' -ForEach @(
        @{ Case = 'a model'; Script = { $model | Start-LoKrTraining $rows -AsJob } }
        @{ Case = 'rows for a model'; Script = { @{ text = 'vpn'; label = 'network' }, @{ text = 'card'; label = 'billing' } | Start-LoKrTraining -Model $model -AsJob } }
        @{ Case = 'a loss'; Script = { $model | Start-LoKrTraining -Batch 1 -Loss { } -AsJob } }
        @{ Case = 'a merge'; Script = { $model | Merge-LoKrAdapter -AsJob } }
    ) {
        $failure = Get-Failure $Script
        ($failure.FullyQualifiedErrorId -split ',')[0] | Should -Be 'LoKr.JobNeedsPath'
        $failure.ErrorDetails.RecommendedAction | Should -Match '-Path'
        Get-Job | Should -BeNullOrEmpty
    }

    It 'is not started for a folder that is not there, and not with -WhatIf' {
        Get-ErrorId { $config | Start-LoKrTraining $rows -Path "$TestDrive/nowhere" -AsJob } | Should -Be 'LoKr.PathNotFound'
        $config | Start-LoKrTraining @request -RunPath "$TestDrive/rehearsed" -AsJob -WhatIf
        $model | Export-LoKrAdapter -Destination "$TestDrive/small" -Force
        Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/small" -Destination "$TestDrive/rehearsed" -AsJob -WhatIf -WarningAction SilentlyContinue
        Get-Job | Should -BeNullOrEmpty
        "$TestDrive/rehearsed" | Should -Not -Exist
    }

    It 'says that an adapter without a run folder is lost' {
        $quiet = $request.Clone()
        $quiet.Remove('WarningAction')
        $job = $config | Start-LoKrTraining @quiet -MaxSteps 1 -AsJob -WarningVariable warnings -WarningAction SilentlyContinue
        Remove-Job -Job $job -Force
        $warnings | Should -BeLike '*-RunPath*'
    }

    It 'runs in LoKr.Shell too' {
        $script = Write-Script "
            `$job = New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier | Start-LoKrTraining '$rows' -Path '$tiny' -Label network, access, billing -MaxSteps 2 -Seed 1 -RunPath '$TestDrive/shell' -AsJob
            `$result = `$job | Receive-Job -Wait -AutoRemoveJob -WarningAction SilentlyContinue
            `"steps `$(`$result.History.Count)`""
        (Invoke-Shell '-File', $script).Output | Should -Contain 'steps 2'
    }
}

Describe 'Several runspaces' {
    It 'train at the same time, each its own model' {
        $results = 1..3 | ForEach-Object -Parallel {
            Import-Module -Name $using:manifest
            $model = Import-LoKrModel -Path $using:encoder -Label $using:labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
            New-LoKrConfig -R $_ -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
            $model | Start-LoKrTraining -Data $using:train -Epochs 2 -LearningRate 1e-2 -HeadLearningRate 1e-2 -Seed 1
            $model.LastTraining
            $model.Dispose()
        }
        $results.Count | Should -Be 3
        foreach ($result in $results) {
            $result.StopReason | Should -Be 'Completed'
            $result.History[-1].Loss | Should -BeLessThan $result.History[0].Loss
        }
    }
}

Describe 'One model' {
    It 'is not trained, merged or disposed while another runspace trains it' {
        $model = Get-AdaptedModel
        $job = Start-ThreadJob -ScriptBlock {
            Import-Module -Name $using:manifest
            $using:model | Start-LoKrTraining -Data $using:train -Epochs 100000
        }
        try {
            for ($i = 0; $i -lt 300 -and -not ($job.Progress.Count -gt 0 -and $job.Progress[-1].StatusDescription -match 'loss'); $i++) {
                Start-Sleep -Milliseconds 100
            }

            Get-ErrorId { $model | Start-LoKrTraining -Data $train -MaxSteps 1 } | Should -Be 'LoKr.ModelBusy'
            Get-ErrorId { $model | Merge-LoKrAdapter } | Should -Be 'LoKr.ModelBusy'
            Get-ErrorId { 'vpn' | Invoke-LoKrModel $model } | Should -Be 'LoKr.ModelBusy'
            { $model.Dispose() } | Should -Throw '*being trained*'
            $job.State | Should -Be 'Running'
        }
        finally {
            Stop-Job -Job $job
            Remove-Job -Job $job -Force
        }

        ($model | Start-LoKrTraining -Data $train -MaxSteps 1 -PassThru).LastTraining.StopReason | Should -Be 'Completed'
        $model.Dispose()
    }

    It 'that was disposed says so, by id and in its view' {
        $model = Get-AdaptedModel
        $model.Dispose()
        $config = New-LoKrConfig -R 1 -TargetModules query
        foreach ($script in { $model | Start-LoKrTraining -Data $train -MaxSteps 1 }, { 'vpn' | Invoke-LoKrModel $model }, { $model | Measure-LoKrModel -Data $eval },
            { $model | Merge-LoKrAdapter }, { $config | Add-LoKrAdapter $model -Name b }, { $model | Get-LoKrModule }, { $model | Get-LoKrAdapter },
            { $model | Export-LoKrAdapter -Destination "$TestDrive/x" }, { $model | Export-LoKrModel -Destination "$TestDrive/y" }, { $model | Disable-LoKrAdapter }) {
            Get-ErrorId $script | Should -Be 'LoKr.ModelDisposed' -Because "$script"
        }

        Get-Display $model | Should -Match 'BertForSequenceClassification.*disposed'
        Get-Display ($model | Format-List) | Should -Match 'Device +: disposed'
    }
}
