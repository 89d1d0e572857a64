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
            for ($i = 0; $i -lt 300 -and $job.Progress.Count -lt 2; $i++) {
                Start-Sleep -Milliseconds 100
            }

            $job.State | Should -Be 'Running'
            $job.Progress[-1].StatusDescription | Should -Match 'loss'
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
            $null = New-LoKrConfig -R 4 -Alpha 8 -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
            $null = $model | Start-LoKrTraining -Data $using:train -MaxSteps 2 -Seed 1
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
            $null = New-LoKrConfig -R $_ -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
            $null = $model | Start-LoKrTraining -Data $using:train -Epochs 2 -LearningRate 1e-2 -Seed 1
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
