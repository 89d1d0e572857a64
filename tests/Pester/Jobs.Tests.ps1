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

Describe 'Several runspaces' {
    It 'train at the same time, each its own model' {
        $results = 1..3 | ForEach-Object -Parallel {
            Import-Module -Name $using:manifest
            $model = Import-LoKrModel -Path $using:encoder -Label $using:labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
            New-LoKrConfig -R $_ -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
            $model | Start-LoKrTraining -Data $using:train -Epochs 2 -LearningRate 1e-2 -Seed 1
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
