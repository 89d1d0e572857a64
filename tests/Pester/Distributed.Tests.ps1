#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# A script for one process as several processes of mpirun: what they write, and how they end. The bits of every kind of training are in LoKr.Reliability.

BeforeDiscovery {
    $shell = $env:LOKR_SHELL ? $env:LOKR_SHELL : "$PSScriptRoot/../../artifacts/bin/LoKr.Shell/debug/LoKr.Shell.dll"
    $script:missing = -not (Get-Command -Name mpirun.mpich -CommandType Application -ErrorAction Ignore) -or -not (Test-Path -LiteralPath $shell)
    $script:missingOpen = $missing -or -not (Get-Command -Name mpirun.openmpi -CommandType Application -ErrorAction Ignore)
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:shell = $env:LOKR_SHELL ? $env:LOKR_SHELL : "$root/artifacts/bin/LoKr.Shell/debug/LoKr.Shell.dll"
    (Get-AdaptedTinyModel).Dispose()
    $script:threads = $env:OMP_NUM_THREADS
    $env:OMP_NUM_THREADS = '1'
    $script:open = 'mpirun.openmpi', '--allow-run-as-root', '--oversubscribe', '--bind-to', 'none'

    # $Data names the file of the second process where it is another one.
    $script:file = "$TestDrive/train.ps1"
    Set-Content -LiteralPath $file -Value @"
        param(`$Run, `$Steps = 6, `$Data = '$rows')
        `$ErrorActionPreference = 'Stop'
        `$rank = "`$env:OMPI_COMM_WORLD_RANK`$env:PMI_RANK"
        Set-Content -LiteralPath "`$Run.`$rank.pid" -Value `$PID
        `$model = Import-LoKrModel '$tiny' -Label network, access, billing
        New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModuleDropout 0.1 | Add-LoKrAdapter `$model
        `$model | Start-LoKrTraining -Data (`$rank -eq '1' ? `$Data : '$rows') -ValidationData '$rowsToMeasure' -GradientAccumulation 4 -BatchSize 4 -MaxSteps `$Steps -EvaluateEvery 3 ``
            -Seed 3 -RunPath `$Run -CheckpointEvery 5 -ReportStep | ForEach-Object { "step `$(`$_.Step) `$(`$_.Loss) `$(`$_.GradientNorm) `$(`$_.EvaluationLoss)" }
        Measure-LoKrModel -Model `$model -Data '$rowsToMeasure' -BatchSize 5 | ForEach-Object { "measured `$(`$_.Loss) `$(`$_.F1)" }
        Invoke-LoKrModel `$model -Data '$rowsToMeasure' -BatchSize 5 | ForEach-Object { "`$(`$_.Text): `$(`$_.Label) `$(`$_.Scores.Values)" }
        `$model | Export-LoKrAdapter -Destination "`$Run-exported"
"@

    # Waits until a run has made some steps, or its process has ended.
    function Wait-Step([System.Diagnostics.Process] $Process, [string] $Log, [int] $Count) {
        while (-not $Process.HasExited -and (-not (Test-Path -LiteralPath $Log) -or @(Get-Content -LiteralPath $Log).Count -lt $Count)) {
            Start-Sleep -Milliseconds 100
        }
    }

    function Invoke-Together([string[]] $Launcher, [string] $Run, [object[]] $Arguments) {
        $program, $options = $Launcher + 'dotnet', $shell, '-NonInteractive', '-File', $file, '-Run', $Run + $Arguments
        $output = & $program @options 2> "$TestDrive/errors.txt"
        @{ ExitCode = $LASTEXITCODE; Output = @($output -match '^\S+.* '); Errors = [string](Get-Content -LiteralPath "$TestDrive/errors.txt" -Raw) }
    }
}

AfterAll {
    $env:OMP_NUM_THREADS = $threads
}

Describe 'Processes of mpirun' -Skip:$missing {
    It 'write what one process writes, once, in its order and with its bits' {
        # All begin with the random head and adapter of the first process.
        $together = Invoke-Together ('mpirun.mpich', '-n', '2') "$TestDrive/together"
        $together.ExitCode | Should -Be 0 -Because $together.Errors
        @($together.Output -match 'no classification head').Count | Should -Be 1
        $run = Get-LoKrRun "$TestDrive/together"
        $run.State, $run.Workers, $run.BatchesPerStep | Should -Be 'Completed', 2, 4
        @($together.Output -like 'step *').Count | Should -Be 6
        @($together.Output -like 'measured *').Count | Should -Be 1
        (Get-FileHash "$TestDrive/together-exported/adapter_model.safetensors").Hash | Should -Be (Get-FileHash "$TestDrive/together/adapter/adapter_model.safetensors").Hash

        # The finished run gives its adapter to a process alone, which measures and classifies the same.
        Remove-Item -LiteralPath "$TestDrive/together-exported" -Recurse
        $alone = Invoke-Together @() "$TestDrive/together"
        $alone.ExitCode | Should -Be 0 -Because $alone.Errors
        $results = @($alone.Output | Where-Object { $_ -notmatch '^step |WARNING' })
        $results.Count | Should -Be 25
        @($together.Output | Where-Object { $_ -notmatch '^step |WARNING' }) -join "`n" | Should -Be ($results -join "`n")
    }

    It 'go on at SIGUSR1, and both end with 75 and one checkpoint at SIGTERM to the launcher' -Skip:$IsWindows {
        $start = [System.Diagnostics.ProcessStartInfo]::new('mpirun.mpich', [string[]] ('-n', '2', 'dotnet', $shell, '-NonInteractive', '-File', $file, '-Run', "$TestDrive/ended", '-Steps', '100000'))
        $start.RedirectStandardOutput = $start.RedirectStandardError = $start.RedirectStandardInput = $true
        $process = [System.Diagnostics.Process]::Start($start)
        $output = $process.StandardOutput.ReadToEndAsync()
        $errors = $process.StandardError.ReadToEndAsync()
        Wait-Step -Process $process -Log "$TestDrive/ended/log.jsonl" -Count 8

        # Launchers pass SIGUSR1 on to every process: it asks for a checkpoint, and ends none.
        & kill -USR1 (Get-Content -LiteralPath "$TestDrive/ended.1.pid")
        Wait-Step -Process $process -Log "$TestDrive/ended/log.jsonl" -Count (20 + @(Get-Content -LiteralPath "$TestDrive/ended/log.jsonl").Count)
        & kill -TERM $process.Id
        $process.WaitForExit(60000) | Should -BeTrue

        # What the launcher makes of the exit codes of its processes after a signal is its own affair.
        $text = "$($output.Result) $($errors.Result)"
        [regex]::Matches($text, 'SIGTERM: the process ends with exit code 75').Count | Should -Be 2 -Because $text
        $run = Get-LoKrRun "$TestDrive/ended"
        $run.State, $run.Reason, $run.ExitCode | Should -Be 'Interrupted', 'Signal', 75
        $run.CheckpointStep | Should -BeGreaterOrEqual $run.Step
    }

    It 'do a job together: one result, one run, one version' {
        Set-Content -LiteralPath "$TestDrive/tickets.job.psd1" -Value @"
            @{
                Base          = @{ Path = '$tiny'; Device = 'cpu' }
                Data          = @{ Path = '$rows'; Validation = '$rowsToMeasure' }
                Configuration = @{ R = 2; Alpha = 4; TargetModules = 'query', 'value' }
                Training      = @{ MaxSteps = 4; BatchSize = 4; GradientAccumulation = 4; Seed = 3; LearningRate = 0.02 }
                Runs          = @{ Path = 'runs' }
                Registry      = @{ Path = 'registry' }
            }
"@
        Set-Content -LiteralPath "$TestDrive/job.ps1" -Value "Invoke-LoKrJob '$TestDrive/tickets.job.psd1' -ResultPath '$TestDrive/result.json' -Exit"
        $output = & mpirun.mpich -n 2 dotnet $shell -NonInteractive -File "$TestDrive/job.ps1" 2>&1
        $LASTEXITCODE | Should -Be 0 -Because "$output"
        @($output -match 'Published, exit code 0').Count | Should -Be 1
        $result = Get-Content -LiteralPath "$TestDrive/result.json" -Raw | ConvertFrom-Json
        $result.State, $result.Version | Should -Be 'Published', 1
        (Get-LoKrRun $result.Run).Workers | Should -Be 2
        @(Get-LoKrAdapterVersion -Registry "$TestDrive/registry").Count | Should -Be 1
    }

    It 'all end with the error of one of them' -Skip:$missingOpen {
        $result = Invoke-Together -Launcher ($open + '-n', '2') -Run "$TestDrive/failed" -Arguments ('-Data', "$TestDrive/nothing.jsonl")
        $result.ExitCode | Should -Be 1
        $result.Errors | Should -Match 'nothing\.jsonl'
        $result.Errors -replace '\s*\n\s*\|?\s*', ' ' | Should -Match 'Worker 1 has ended with exit code 1\.'
    }
}
