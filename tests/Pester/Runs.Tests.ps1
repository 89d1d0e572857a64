#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Runs on disk and the registry of adapters, as scripts use them.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    function Get-Weight([string] $Folder) {
        (Get-FileHash -LiteralPath (Join-Path $Folder 'adapter_model.safetensors')).Hash
    }
}

Describe 'A run in a folder' {
    BeforeAll {
        $model = Get-AdaptedTinyModel
        $model | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MaxSteps 12 -BatchSize 8 -EvaluateEvery 4 -Seed 3 -KeepBest -RunPath "$TestDrive/whole" -CheckpointEvery 4
        $model.Dispose()
    }

    It 'has a state, a log, checkpoints and an adapter' {
        $run = Get-LoKrRun "$TestDrive/whole"
        $run.State | Should -Be 'Completed'
        $run.Reason | Should -Be 'Completed'
        $run.ExitCode | Should -Be 0
        $run.Step | Should -Be 12
        $run.LossCurve.Count | Should -Be 12
        $lines = @(Get-Content -LiteralPath "$TestDrive/whole/log.jsonl" | ConvertFrom-Json)
        $lines.Count | Should -Be 12
        $lines[3].evaluationLoss | Should -BeOfType [double]
        Test-Path -LiteralPath "$TestDrive/whole/checkpoints/000008/state.json" | Should -BeTrue
        (Get-LoKrConfig "$TestDrive/whole/adapter").R | Should -Be 2
        Get-ChildItem -LiteralPath "$TestDrive/whole" -Recurse -Force -Filter '.*' | Should -BeNullOrEmpty
        Get-Content -LiteralPath "$TestDrive/whole/report.md" -TotalCount 1 | Should -Be "# Run $($run.Id)"
        (Get-Item -Path "$TestDrive/whole/loss.png", "$TestDrive/whole/events.out.tfevents.*").Length | Should -Not -Contain 0
    }

    It 'becomes one page, which holds its picture, and is made beside the run or where it is wanted' {
        $page = Get-LoKrRun "$TestDrive/whole" | Export-LoKrReport
        $page.FullName | Should -Be ([System.IO.Path]::GetFullPath("$TestDrive/whole/report.html"))
        Get-Content -LiteralPath $page -Raw | Should -Match '(?s)<h1>Run .*<img src="data:image/png;base64,'
        $null = Export-LoKrReport "$TestDrive/whole"
        (Export-LoKrReport "$TestDrive/whole" $TestDrive -As Markdown).Name | Should -Be 'whole.md'
        { Export-LoKrReport "$TestDrive/whole" "$TestDrive/whole.md" -As Markdown -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.DestinationExists,*'
        (Export-LoKrReport "$TestDrive/whole" "$TestDrive/whole.md" -As Markdown -Force).Length | Should -BeGreaterThan 1000
        Export-LoKrReport "$TestDrive/whole" "$TestDrive/never.html" -WhatIf | Should -BeNullOrEmpty
        Test-Path -LiteralPath "$TestDrive/never.html" | Should -BeFalse
        { Export-LoKrReport "$TestDrive" -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.RunNotFound,*'
    }

    It 'goes on where a consumer stopped it, and ends with the same bits' {
        $model = Get-AdaptedTinyModel
        $first = $model | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MaxSteps 12 -BatchSize 8 -EvaluateEvery 4 -Seed 3 -KeepBest -RunPath "$TestDrive/part" -ReportStep |
            Select-Object -First 3
        $first.Count | Should -Be 3
        (Get-LoKrRun "$TestDrive/part").State | Should -Be 'Interrupted'
        $model.Dispose()

        $model = Get-AdaptedTinyModel
        $model | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MaxSteps 12 -BatchSize 8 -EvaluateEvery 4 -Seed 3 -KeepBest -RunPath "$TestDrive/part"
        $model.LastTraining.History.Count | Should -Be 12
        (Get-LoKrRun "$TestDrive/part").Attempt | Should -Be 2
        $model.Dispose()
        Get-Weight "$TestDrive/part/adapter" | Should -Be (Get-Weight "$TestDrive/whole/adapter")
    }

    It 'is refused for another learning rate, and begins anew with -Force' {
        $model = Get-AdaptedTinyModel
        { $model | Start-LoKrTraining -Data $rows -MaxSteps 2 -BatchSize 8 -Seed 3 -RunPath "$TestDrive/whole" -ErrorAction Stop } |
            Should -Throw -ErrorId 'LoKr.RunMismatch,*'
        Copy-Item -LiteralPath "$TestDrive/whole" -Destination "$TestDrive/copy" -Recurse
        $model | Start-LoKrTraining -Data $rows -MaxSteps 2 -BatchSize 8 -Seed 3 -RunPath "$TestDrive/copy" -Force
        (Get-LoKrRun "$TestDrive/copy").TotalSteps | Should -Be 2
        $model.Dispose()
    }

    It 'says that parameters of run folders have no effect without one' {
        $model = Get-AdaptedTinyModel
        $model | Start-LoKrTraining -Data $rows -MaxSteps 1 -CheckpointEvery 2 -Patience 2 -WarningVariable said -WarningAction SilentlyContinue
        "$said" | Should -Match '-CheckpointEvery has no effect without -RunPath'
        "$said" | Should -Match 'Patience has no effect without validation data'
        $model.Dispose()
    }

    It 'takes a number of steps or a time, and names what is neither' {
        # To PowerShell 90s is a number of 16 bits, and 1d a decimal.
        function Read-Interval([LoKr.PowerShell.Binding.IntervalTransformation()] [LoKr.Core.Runs.RunInterval] $Every) { $Every }
        (Read-Interval 90s).Time | Should -Be '00:01:30'
        (Read-Interval 1d).Time | Should -Be '1.00:00:00'
        (Read-Interval 2.5h).Time | Should -Be '02:30:00'
        (Read-Interval 200).Steps | Should -Be 200
        (Read-Interval '00:10:00').Time | Should -Be '00:10:00'
        (Read-Interval ([timespan]::FromHours(1))).Time | Should -Be '01:00:00'
        $model = Get-AdaptedTinyModel
        $model | Start-LoKrTraining -Data $rows -MaxSteps 1 -RunPath "$TestDrive/timed" -CheckpointEvery 90s -TimeLimit 1h
        { $model | Start-LoKrTraining -Data $rows -MaxSteps 1 -TimeLimit soon } | Should -Throw '*is not a time*'
        { $model | Start-LoKrTraining -Data $rows -MaxSteps 1 -TimeLimit 60 } | Should -Throw '*is not a time*'
        $model.Dispose()
    }

    It 'is waited for, passed over by a wildcard where there is none, and removed' {
        (Wait-LoKrRun "$TestDrive/whole" -Timeout 1s).State | Should -Be 'Completed'
        $null = New-Item -ItemType Directory -Path "$TestDrive/empty-folder"
        @(Get-LoKrRun "$TestDrive/*").Count | Should -BeGreaterOrEqual 2
        { Get-LoKrRun "$TestDrive/empty-folder" -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.RunNotFound,*'
        foreach ($command in 'Get-LoKrRun', 'Wait-LoKrRun', 'Stop-LoKrRun', 'Remove-LoKrRun', 'Export-LoKrReport', 'Get-LoKrSubmission', 'Stop-LoKrSubmission') {
            & $command "$TestDrive/empty-folder/*" 2>&1 | Should -BeNullOrEmpty
        }

        { Get-LoKrRun "$TestDrive/no-folder/*" -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.PathNotFound,*'
        { Get-LoKrRun "$TestDrive/no-folder" -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.PathNotFound,*'
        Stop-LoKrRun "$TestDrive/whole"
        Test-Path -LiteralPath "$TestDrive/whole/stop" | Should -BeFalse
        Remove-LoKrRun "$TestDrive/timed" -WhatIf
        Test-Path -LiteralPath "$TestDrive/timed" | Should -BeTrue
        Remove-LoKrRun "$TestDrive/timed" -OlderThan 1d
        Test-Path -LiteralPath "$TestDrive/timed" | Should -BeTrue
        Remove-LoKrRun "$TestDrive/timed"
        Test-Path -LiteralPath "$TestDrive/timed" | Should -BeFalse
    }
}

Describe 'A run in another process' {
    BeforeAll {
        $model = Get-TinyModel
        $model.Dispose()
        # Long enough to be ended, and ended before that.
        $script:script = @"
Import-Module -Name '$manifest'
`$model = Import-LoKrModel -LiteralPath '$tiny' -Label network, access, billing -Seed 1 -WarningAction SilentlyContinue
New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter -Model `$model -Seed 1
try { `$model | Start-LoKrTraining -Data '$rows' -MaxSteps STEPS -BatchSize 8 -Seed 3 -RunPath 'RUN' -CheckpointEvery 5 } catch { 'caught' }
"@
        $script:processes = [System.Collections.Generic.List[System.Diagnostics.Process]]::new()
        function Invoke-Run([string] $Run, [int] $Steps) {
            $file = "$TestDrive/$(Split-Path -Leaf $Run).ps1"
            Set-Content -LiteralPath $file -Value $script.Replace('STEPS', "$Steps").Replace('RUN', $Run)
            # pwsh by itself, or a program of .NET that dotnet runs.
            $program = (Split-Path -LeafBase ([Environment]::ProcessPath)) -eq 'dotnet' ? @([Environment]::GetCommandLineArgs()[0]) : @()
            $process = Start-Process -FilePath ([Environment]::ProcessPath) -ArgumentList ($program + '-NoProfile', '-NonInteractive', '-File', $file) -PassThru
            $processes.Add($process)
            $process
        }

        function Wait-Step([string] $Run, [int] $Step) {
            for ($i = 0; $i -lt 1200; $i++) {
                if ((Test-Path -LiteralPath "$Run/log.jsonl") -and @(Get-Content -LiteralPath "$Run/log.jsonl").Count -ge $Step) {
                    return
                }

                Start-Sleep -Milliseconds 50
            }

            throw "The run $Run did not come to step $Step."
        }
    }

    AfterAll {
        # What a failed test has not ended would train for hours.
        $processes | Where-Object { -not $_.HasExited } | ForEach-Object { $_.Kill() }
    }

    It 'is stopped by Stop-LoKrRun, and is busy for others until then' {
        $process = Invoke-Run "$TestDrive/stopped" 1000000
        Wait-Step "$TestDrive/stopped" 3
        (Get-LoKrRun "$TestDrive/stopped").State | Should -Be 'Running'
        { Remove-LoKrRun "$TestDrive/stopped" -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.RunBusy,*'
        { Remove-LoKrRun "$TestDrive/stopped" -WhatIf -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.RunBusy,*'
        Stop-LoKrRun "$TestDrive/stopped"
        $run = Wait-LoKrRun "$TestDrive/stopped" -Timeout 60s
        $run.State | Should -Be 'Interrupted'
        $run.Reason | Should -Be 'Stopped'
        $run.CheckpointStep | Should -Be $run.Step
        $process.WaitForExit(60000) | Should -BeTrue
    }

    It 'ends with 75 and a checkpoint at SIG<_>, and goes on' -Skip:($IsWindows) -ForEach 'TERM', 'INT' {
        Skip-IgnoredInterrupt $_
        $folder = "$TestDrive/ended-$_"
        $process = Invoke-Run $folder 1000000
        Wait-Step $folder 3
        kill "-$_" $process.Id
        $process.WaitForExit(60000) | Should -BeTrue
        $process.ExitCode | Should -Be 75
        $run = Get-LoKrRun $folder
        # At SIGINT it is the console that stops the command.
        $run.Reason | Should -Be ($_ -eq 'INT' ? 'Canceled' : 'Signal')
        $run.ExitCode | Should -Be 75
        $run.CheckpointStep | Should -Be $run.Step
    }

    It 'ends so too where SIGTERM meets the thread in the next command' -Skip:($IsWindows) {
        $former = $script
        $script:script = $script.Replace('-CheckpointEvery 5', '-CheckpointEvery 5 -ReportStep | ForEach-Object { Start-Sleep -Milliseconds 500 }')
        $script:script += 'finally { [System.IO.File]::WriteAllText("RUN.reason", $model.LastTraining.StopReason) }'
        try {
            $process = Invoke-Run "$TestDrive/ended-in-next" 1000000
            Wait-Step "$TestDrive/ended-in-next" 3
            kill -TERM $process.Id
            $process.WaitForExit(60000) | Should -BeTrue
            $process.ExitCode | Should -Be 75
            $run = Get-LoKrRun "$TestDrive/ended-in-next"
            $run.State, $run.Reason, $run.ExitCode | Should -Be 'Interrupted', 'Signal', 75
            $run.CheckpointStep | Should -Be $run.Step
            Get-Content -LiteralPath "$TestDrive/ended-in-next.reason" | Should -Be 'Signal'
        }
        finally {
            $script:script = $former
        }
    }

    It 'writes a checkpoint at SIGUSR1, and goes on' -Skip:($IsWindows) {
        $script:script = $script.Replace('-CheckpointEvery 5', '-CheckpointEvery 1000000')
        try {
            $process = Invoke-Run "$TestDrive/signaled" 1000000
            Wait-Step "$TestDrive/signaled" 3
            (Get-LoKrRun "$TestDrive/signaled").CheckpointStep | Should -Be 0
            kill -USR1 $process.Id
            for ($i = 0; $i -lt 1200 -and -not (Get-LoKrRun "$TestDrive/signaled").CheckpointStep; $i++) {
                Start-Sleep -Milliseconds 50
            }

            $run = Get-LoKrRun "$TestDrive/signaled"
            $run.CheckpointStep | Should -BeGreaterThan 0
            $run.State | Should -Be 'Running'
            Wait-Step "$TestDrive/signaled" ($run.CheckpointStep + 5)
        }
        finally {
            kill -KILL $process.Id
            $process.WaitForExit()
            $script:script = $script.Replace('-CheckpointEvery 1000000', '-CheckpointEvery 5')
        }
    }

    It 'survives kill -9 and ends with the same bits' -Skip:($IsWindows) {
        $process = Invoke-Run "$TestDrive/through" 60
        $process.WaitForExit(120000) | Should -BeTrue
        $process = Invoke-Run "$TestDrive/killed" 60
        Wait-Step "$TestDrive/killed" 7
        kill -KILL $process.Id
        $process.WaitForExit()
        $process = Invoke-Run "$TestDrive/killed" 60
        $process.WaitForExit(120000) | Should -BeTrue
        (Get-LoKrRun "$TestDrive/killed").State | Should -Be 'Completed'
        Get-Weight "$TestDrive/killed/adapter" | Should -Be (Get-Weight "$TestDrive/through/adapter")
    }
}

Describe 'A registry' {
    BeforeAll {
        $model = Get-AdaptedTinyModel
        $model | Start-LoKrTraining -Data $rows -MaxSteps 2 -BatchSize 8 -Seed 3 -RunPath "$TestDrive/first"
        $model | Start-LoKrTraining -Data $rows -MaxSteps 3 -BatchSize 8 -Seed 3 -RunPath "$TestDrive/second"
        $model.Dispose()
    }

    It 'takes runs, publishes, goes back and keeps' {
        $first = Register-LoKrAdapter tickets "$TestDrive/first" -Registry "$TestDrive/registry" -Description 'night 1'
        $first.Version | Should -Be 1
        $first.Card.Run | Should -Be (Get-LoKrRun "$TestDrive/first").Id
        ($first | Publish-LoKrAdapter).Aliases | Should -Be 'champion'
        $second = Get-LoKrRun "$TestDrive/second" | Register-LoKrAdapter tickets -Registry "$TestDrive/registry"
        $second.Card.Parent | Should -Be 1
        Get-ErrorId { Restore-LoKrAdapter tickets -Registry "$TestDrive/registry" -WhatIf } | Should -Be 'LoKr.VersionNotFound'
        Get-ErrorId { Publish-LoKrAdapter tickets -Version 9 -Registry "$TestDrive/registry" -WhatIf } | Should -Be 'LoKr.VersionNotFound'
        Get-ErrorId { Unregister-LoKrAdapter tickets 1 -Registry "$TestDrive/registry" -WhatIf } | Should -Be 'LoKr.VersionInUse'
        $second | Publish-LoKrAdapter -WhatIf
        Get-LoKrAdapterVersion tickets -Alias champion -Registry "$TestDrive/registry" | ForEach-Object Version | Should -Be 1
        $second | Publish-LoKrAdapter | Out-Null
        (Get-LoKrAdapterVersion tickets -Registry "$TestDrive/registry").Version | Should -Be 2, 1
        (Restore-LoKrAdapter tickets -Registry "$TestDrive/registry").Version | Should -Be 1
        (Get-LoKrAdapterVersion -Registry "$TestDrive/registry" -Alias champion).Version | Should -Be 1
        { Unregister-LoKrAdapter tickets 1 -Registry "$TestDrive/registry" -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.VersionInUse,*'
        Unregister-LoKrAdapter tickets -Keep 0 -Registry "$TestDrive/registry"
        (Get-LoKrAdapterVersion tickets -Registry "$TestDrive/registry").Version | Should -Be 1
    }

    It 'gives its champion to a model' {
        $fresh = Import-LoKrModel -LiteralPath $tiny -Label network, access, billing -Seed 1 -WarningAction SilentlyContinue
        $fresh | Import-LoKrAdapter -Registry "$TestDrive/registry" -Name tickets
        $fresh.Adapters.Name | Should -Be 'tickets'
        { $fresh | Import-LoKrAdapter -Registry "$TestDrive/registry" -Name nothing -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.VersionNotFound,*'
        $fresh.Dispose()
    }
}
