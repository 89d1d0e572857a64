#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Lists of jobs on this machine: what is run, how it ends, and what runs when the list is submitted again.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # Jobs of a few steps on one base.
    function Initialize-List([string] $Name, [string[]] $Jobs) {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/$Name").FullName
        $null = [LoKr.Testing.TinyModel]::WriteBert("$folder/model")
        foreach ($job in $Jobs) {
            $null = [LoKr.Testing.TinyData]::WriteTickets("$folder/$job.jsonl", 24, 1)
            Set-Content -LiteralPath "$folder/$job.job.psd1" -Value @"
@{
    Base = @{ Path = './model'; Device = 'cpu' }
    Data = @{ Path = './$job.jsonl' }
    Configuration = @{ R = 2; Alpha = 4; TargetModules = 'query', 'value'; TaskType = 'SequenceClassification' }
    Training = @{ MaxSteps = 2; BatchSize = 8; Seed = 3 }
    Registry = @{ Path = './registry' }
}
"@
        }

        $folder
    }
}

Describe 'A list of jobs' {
    BeforeAll {
        $script:list = Initialize-List 'customers' 'acme', 'bad', 'long'
        Add-Content -LiteralPath "$list/bad.jsonl" -Value '{ "text": '
        (Get-Content -LiteralPath "$list/long.job.psd1" -Raw) -replace 'MaxSteps = 2', "MaxSteps = 1000000; TimeLimit = '1s'" | Set-Content -LiteralPath "$list/long.job.psd1"
        $script:submitted = Submit-LoKrJob "$list/*.job.psd1" -MaxConcurrent 2 -RestartLimit 1
        $script:jobs = @($submitted | Wait-LoKrSubmission -Timeout 5m)
    }

    It 'is a submission with a folder beside the job files' {
        $submitted.Path | Should -Be (Join-Path $list 'submission')
        $submitted.JobCount, $submitted.SubmittedCount | Should -Be 3, 3
        $submitted.Reasons['New'] | Should -Be 3
        $submitted.Id | Should -Match '^process \d+ on '
    }

    It 'ends with a state, an exit code and a sentence for each job' {
        $byName = $jobs | Group-Object -Property Job -AsHashTable
        $jobs.Count | Should -Be 3
        $byName['acme'].State | Should -Be 'Completed' -Because (Get-Content -LiteralPath $byName['acme'].LogPath -Raw)
        $byName['acme'].ExitCode, $byName['acme'].Outcome, $byName['acme'].Version, $byName['acme'].Step | Should -Be 0, 'Published', 1, 2
        $byName['bad'].State, $byName['bad'].ExitCode, $byName['bad'].CanContinue | Should -Be 'Failed', 3, $false
        $byName['bad'].ErrorId | Should -BeLike 'LoKr.*'
        $byName['bad'].Message | Should -Match 'bad\.jsonl'
        $byName['long'].State, $byName['long'].ExitCode, $byName['long'].Restarts, $byName['long'].CanContinue | Should -Be 'Stopped', 75, 1, $true
        (Get-LoKrRun $byName['long'].Run).Attempt | Should -Be 2
        Get-Content -LiteralPath $byName['acme'].LogPath -Raw | Should -Match 'Published, exit code 0'
    }

    It 'has a view, and counts' {
        $text = Get-Display (Get-LoKrSubmission "$list/submission") 160
        $text | Should -Match '1 acme +Completed +0 +2/2 New'
        $steps = [LoKr.PowerShell.Formatting.ViewText]::Steps(($jobs | Where-Object Job -EQ 'long').Step, 1000000)
        $text | Should -Match "3 long +Stopped +75 +$steps New"
        $summary = Get-LoKrSubmission "$list/submission" -Summary
        $summary.IsFinished | Should -BeTrue
        Get-Display $summary | Should -Match 'customers +Local +3 +0 +0 +1 +1 +1 +1 '
        Get-Display ($summary | Format-List) | Should -Match 'ExitCodes +: 0 = 1, 3 = 1, 75 = 1'
        $copy = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($jobs))
        Get-Display $copy 160 | Should -Be (Get-Display $jobs 160)
    }

    It 'runs only what can go on or changed when it is submitted again, and says which' {
        (Get-Content -LiteralPath "$list/long.job.psd1" -Raw) -replace 'MaxSteps = 1000000', 'MaxSteps = 999999' | Set-Content -LiteralPath "$list/long.job.psd1"
        Submit-LoKrJob "$list/*.job.psd1" -WhatIf
        (Get-LoKrSubmission "$list/submission" -Summary).Attempt | Should -Be 1
        Set-Content -LiteralPath "$list/bad.jsonl" -Value (Get-Content -LiteralPath "$list/acme.jsonl")
        $again = Submit-LoKrJob "$list/acme.job.psd1", "$list/bad.job.psd1"
        $again.Attempt, $again.SubmittedCount | Should -Be 2, 1
        $ended = Wait-LoKrSubmission "$list/submission" -Timeout 5m
        $ended.Job | Should -Be 'acme', 'bad', 'long'
        $ended.State | Should -Be 'Completed', 'Completed', 'Stopped'
        $ended.Reason | Should -Be 'Unchanged', 'Changed', 'New'
        "$($ended[1].Changes)" | Should -Be 'Data'
        $nothing = Submit-LoKrJob "$list/acme.job.psd1" -Verbose 4>&1
        $nothing[-1].SubmittedCount | Should -Be 0
        "$nothing" | Should -Match 'Submitted 0 of 1 jobs'
    }

    It 'is refused file by file' {
        Set-Content -LiteralPath "$list/wrong.job.psd1" -Value '@{ }'
        Get-ErrorId { Submit-LoKrJob "$list/wrong.job.psd1" -WhatIf } | Should -Be 'LoKr.JobInvalid'
        Get-ErrorId { Get-LoKrSubmission $list } | Should -Be 'LoKr.SubmissionNotFound'
        $said = Submit-LoKrJob "$list/acme.job.psd1" -Partition night -WhatIf 3>&1
        "$said" | Should -Match '-Partition has no effect without -Scheduler Slurm'
    }
}

Describe 'A submission' {
    It 'is stopped with checkpoints, job by job, and goes on' {
        $folder = Initialize-List 'stopped' 'a', 'b'
        foreach ($name in 'a', 'b') {
            (Get-Content -LiteralPath "$folder/$name.job.psd1" -Raw) -replace 'MaxSteps = 2', 'MaxSteps = 400' | Set-Content -LiteralPath "$folder/$name.job.psd1"
        }

        # More steps than there is time for before it is stopped.
        (Get-Content -LiteralPath "$folder/a.job.psd1" -Raw) -replace 'MaxSteps = 400', 'MaxSteps = 1000000' | Set-Content -LiteralPath "$folder/a.job.psd1"
        $submission = Submit-LoKrJob "$folder/*.job.psd1" -MaxConcurrent 1
        for ($i = 0; $i -lt 1200 -and -not (Get-LoKrSubmission $submission.Path)[0].Step; $i++) {
            Start-Sleep -Milliseconds 50
        }

        $jobs = Get-LoKrSubmission $submission.Path
        $jobs.State | Should -Be 'Running', 'Pending'
        Get-ErrorId { Submit-LoKrJob "$folder/*.job.psd1" } | Should -Be 'LoKr.RunBusy'
        Stop-LoKrSubmission $submission.Path -WhatIf
        (Get-LoKrSubmission $submission.Path).State | Should -Be 'Running', 'Pending'
        $jobs | Where-Object Job -EQ 'a' | Stop-LoKrSubmission
        $ended = Wait-LoKrSubmission $submission.Path -Timeout 5m
        $ended.State | Should -Be 'Stopped', 'Completed'
        $ended[0].ExitCode | Should -Be 75
        (Get-LoKrRun $ended[0].Run).CheckpointStep | Should -BeGreaterThan 0
        $ended[1].Step | Should -Be 400
        Get-ChildItem -LiteralPath $folder -Recurse -Force -Filter *.lock | Should -BeNullOrEmpty
    }
}
