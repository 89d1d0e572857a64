#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What Export-LoKrSchedule writes; how the files are quoted is tested beside the code that quotes.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:job = (New-LoKrJob "$TestDrive/tickets.job.psd1" -Force).FullName
}

Describe 'A schedule' {
    It 'for <As> is a script and <Files>' -ForEach @(
        @{ As = 'Systemd'; Files = 'lokr-tickets.service', 'lokr-tickets.timer' }
        @{ As = 'TaskScheduler'; Files = @('tickets.task.xml') }
        @{ As = 'Cron'; Files = @('tickets.crontab') }
        @{ As = 'Kubernetes'; Files = @('tickets.cronjob.yaml') }
        @{ As = 'Slurm'; Files = @('tickets.sbatch') }
    ) {
        $written = Export-LoKrSchedule $job -As $As -At 02:15 -Destination "$TestDrive/$As"
        $written.Name | Should -Be (@('tickets.ps1') + $Files)
        $written | ForEach-Object { $_.FullName | Should -Exist }
        Get-ErrorId { Export-LoKrSchedule $job -As $As -At 02:15 -Destination "$TestDrive/$As" -ErrorAction Stop } | Should -Be 'LoKr.DestinationExists'
        Export-LoKrSchedule $job -As $As -At 03:15 -Destination "$TestDrive/$As" -Force | Out-Null
    }

    It 'runs the job with its exit code' -Skip:($IsWindows) {
        # A job whose data are not there yet.
        $null = Export-LoKrSchedule $job -As Cron -At 02:15 -Destination "$TestDrive/it's 100% ü"
        $line = Get-Content -LiteralPath "$TestDrive/it's 100% ü/tickets.crontab" | Where-Object { $_ -match '^\d' }
        $line | Should -Match '^15 2 \* \* \* flock '
        # cron gives \% to the shell as %.
        & sh -c ($line -replace '^15 2 \* \* \* ' -replace '\\%', '%')
        $LASTEXITCODE | Should -Be 3
        Get-Content -LiteralPath "$TestDrive/it's 100% ü/tickets.log" -Raw | Should -Match 'Failed, exit code 3.*data\.path'
    }

    It 'is not written for a job that is invalid, nor with -WhatIf' {
        Set-Content -LiteralPath "$TestDrive/bad.job.psd1" -Value '@{ }'
        Get-ErrorId { Export-LoKrSchedule "$TestDrive/bad.job.psd1" -As Cron -At 02:15 -Destination "$TestDrive/bad" -ErrorAction Stop } | Should -Be 'LoKr.JobInvalid'
        Export-LoKrSchedule $job -As Cron -At 02:15 -Destination "$TestDrive/rehearsed" -WhatIf
        "$TestDrive/rehearsed" | Should -Not -Exist
        Export-LoKrSchedule $job -As Cron -At 02:15 -Destination "$TestDrive/said" -Image x -WarningVariable said -WarningAction SilentlyContinue | Out-Null
        "$said" | Should -Match '-Image has no effect without -As Kubernetes'
    }

    It 'for Kubernetes takes a list of jobs, by the index of the pod' {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/customers").FullName
        foreach ($name in 'acme', 'globex') {
            $null = New-LoKrJob "$folder/$name.job.psd1"
        }

        $written = Export-LoKrSchedule "$folder/*.job.psd1" -As Kubernetes -Destination "$TestDrive/list" -MaxConcurrent 2 -ThreadsPerJob 3
        $written.Name | Should -Be 'customers.ps1', 'customers.jobs.txt', 'customers.job.yaml'
        Get-Content -LiteralPath $written[1] | Should -Be ('acme', 'globex' | ForEach-Object { [System.IO.Path]::GetFullPath("$folder/$_.job.psd1") })
        Get-Content -LiteralPath $written[2] -Raw | Should -Match '(?s)completionMode: Indexed\n  completions: 2\n  parallelism: 2\n.*podFailurePolicy:.*FailIndex'
        (Export-LoKrSchedule "$folder/*.job.psd1" Kubernetes -At 02:15 -Destination "$TestDrive/list" -Force)[2].Name | Should -Be 'customers.cronjob.yaml'
        Get-ErrorId { Export-LoKrSchedule "$folder/*.job.psd1" -As Slurm -At 02:15 -Destination "$TestDrive/list" -Force } | Should -Be 'LoKr.InvalidArgument'
        Get-ErrorId { Export-LoKrSchedule $job -As Slurm -Destination "$TestDrive/list" -Force } | Should -Be 'LoKr.InvalidArgument'

        # As the pod of the second index does it: its data are not there yet.
        $null = Export-LoKrSchedule "$folder/*.job.psd1" -As Kubernetes -Destination "$TestDrive/list" -Module $manifest -Force
        $env:JOB_COMPLETION_INDEX = '1'
        $result = Invoke-Shell -ArgumentList '-File', "$TestDrive/list/customers.ps1" -Program $pwsh
        Remove-Item -LiteralPath Env:/JOB_COMPLETION_INDEX
        $result.ExitCode | Should -Be 3
        $result.Error | Should -Match 'globex\.job\.psd1'
    }
}
