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
}
