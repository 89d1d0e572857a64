#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# A real Slurm on this machine: a controller and four nodes. Skipped where there is none.

BeforeDiscovery {
    $script:reason = $IsLinux ? (& bash "$PSScriptRoot/../slurm/cluster.sh" available) : 'Slurm is for Linux.'
    if ($reason) {
        Write-Warning "No tests with Slurm: $reason"
    }
}

Describe 'A job array of Slurm' -Skip:([bool] $reason) {
    BeforeAll {
        . "$PSScriptRoot/Common.ps1"
        $script:cluster = "$root/tests/slurm/cluster.sh"
        & bash $cluster start "$TestDrive/cluster" 4
        $LASTEXITCODE | Should -Be 0
        $env:SLURM_CONF = "$TestDrive/cluster/slurm.conf"

        # Forty jobs on one base: the first needs more time than it has, two run long enough to be killed, three have a row that is not JSON.
        $script:list = (New-Item -ItemType Directory -Path "$TestDrive/customers").FullName
        $null = [LoKr.Testing.TinyModel]::WriteBert("$list/model")
        $null = [LoKr.Testing.TinyData]::WriteTickets("$list/good.jsonl", 24, 1)
        Set-Content -LiteralPath "$list/bad.jsonl" -Value (@(Get-Content -LiteralPath "$list/good.jsonl") + '{ "text": ')
        function Write-Job([string] $Path, [int] $Steps, [string] $Data = 'good', [string] $More = '') {
            Set-Content -LiteralPath $Path -Value @"
@{
    Base = @{ Path = '$list/model'; Device = 'cpu' }
    Data = @{ Path = '$list/$Data.jsonl' }
    Configuration = @{ R = 2; Alpha = 4; TargetModules = 'query', 'value'; TaskType = 'SequenceClassification' }
    Training = @{ MaxSteps = $Steps; BatchSize = 8; Seed = 3$More }
    Runs = @{ CheckpointEvery = 100 }
}
"@
        }

        $script:late = 1
        $script:killed = 2, 3
        $script:bad = 10, 20, 30
        foreach ($number in 1..40) {
            Write-Job "$list/c$("$number".PadLeft(2, '0')).job.psd1" -Steps ($number -eq $late ? 10000000 : $number -in $killed ? 1500 : 1) -Data ($number -in $bad ? 'bad' : 'good') -More ($number -eq $late ? "; TimeLimit = '2s'" : '')
        }

        # Beside them a job that stops by itself after a second, twice.
        $null = New-Item -ItemType Directory -Path "$TestDrive/again"
        Write-Job "$TestDrive/again/again.job.psd1" -Steps 10000000 -More "; TimeLimit = '1s'"
    }

    AfterAll {
        & bash $cluster stop "$TestDrive/cluster"
        Remove-Item -LiteralPath Env:/SLURM_CONF
    }

    It 'ends with forty right states, whatever happens to its jobs' {
        $script:submitted = Submit-LoKrJob "$list/*.job.psd1" -Scheduler Slurm -Partition main -MaxConcurrent 6 -TimeLimit 30m -RestartLimit 0
        $submitted.Id | Should -Match '^\d+$'
        $submitted.JobCount, $submitted.SubmittedCount | Should -Be 40, 40
        $script:again = Submit-LoKrJob "$TestDrive/again/*.job.psd1" -Scheduler Slurm -RestartLimit 1
        foreach ($number in $killed) {
            # A run has its process in its state, and steps in its log.
            $run = "$list/runs/c0$number/*"
            for ($i = 0; $i -lt 1200 -and -not (Get-Item -Path "$run/log.jsonl" -ErrorAction Ignore)?.Length; $i++) {
                Start-Sleep -Milliseconds 50
            }

            kill -KILL (Get-LoKrRun $run).ProcessId
        }

        $jobs = @($submitted | Wait-LoKrSubmission -Timeout 5m) | Sort-Object -Property Index
        $jobs.Count | Should -Be 40
        $said = $jobs | Format-Table Index, State, ExitCode, Message | Out-String
        foreach ($job in $jobs) {
            $expected = $job.Index -eq $late ? @('Stopped', 75, $true) : $job.Index -in $killed ? @('Stopped', 137, $true) : $job.Index -in $bad ? @('Failed', 3, $false) : @('Completed', 0, $false)
            $job.State, $job.ExitCode, $job.CanContinue | Should -Be $expected -Because $said
            $job.SchedulerId | Should -Be "$($submitted.Id)_$($job.Index)"
        }

        @($jobs.Node | Sort-Object -Unique).Count | Should -BeGreaterThan 1
        $jobs.Node | Where-Object { $_ -notmatch '^n[1-4]$' } | Should -BeNullOrEmpty
        (Get-LoKrSubmission $submitted.Path -Summary).ContinuableCount | Should -Be 3
    }

    It 'does exactly the three that can go on when it is submitted again, and stops' {
        $second = Submit-LoKrJob "$list/*.job.psd1" -Scheduler Slurm -RestartLimit 3
        $second.SubmittedCount | Should -Be 3
        "$($second.Reasons)" | Should -Be 'Stopped = 3'
        $done = Wait-LoKrSubmission $second.Path -Index $killed -Timeout 3m
        $done.State | Should -Be 'Completed', 'Completed' -Because "$($done.Message)"
        $done.Step | Should -Be 1500, 1500
        foreach ($job in $done) {
            (Get-LoKrRun $job.Run).Attempt | Should -Be 2
        }

        for ($i = 0; $i -lt 600 -and (Get-LoKrSubmission $second.Path -Index $late).State -ne 'Running'; $i++) {
            Start-Sleep -Milliseconds 100
        }

        Stop-LoKrSubmission $second.Path
        $ended = Wait-LoKrSubmission $second.Path -Timeout 2m
        ($ended | Where-Object Index -EQ $late).State | Should -Be 'Stopped'
        @($ended | Where-Object State -EQ 'Completed').Count | Should -Be 36
        Get-ChildItem -LiteralPath $list -Recurse -Force -Filter *.lock | Should -BeNullOrEmpty
    }

    It 'requeues a job that stopped with a checkpoint, as often as the submission says' {
        $job = $again | Wait-LoKrSubmission -Timeout 3m
        $job.State, $job.ExitCode, $job.Restarts | Should -Be 'Stopped', 75, 1
        (Get-LoKrRun $job.Run).Attempt | Should -Be 2
    }

    It 'is refused with the words of Slurm' {
        Write-Job "$list/more.job.psd1" -Steps 2
        $failure = Get-Failure { Submit-LoKrJob "$list/more.job.psd1" -Scheduler Slurm -Partition none -Destination "$TestDrive/refused" }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.SchedulerFailed,*'
        "$failure" | Should -Match 'sbatch ended with exit code 1: .*invalid partition'
    }
}
