#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Job files as people write them, and jobs as schedulers run them.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # A folder with the tiny encoder, data that it can learn, and a job.
    function Initialize-Workplace([string] $Name) {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/$Name").FullName
        $null = [LoKr.Testing.TinyModel]::WriteBert("$folder/model")
        $null = New-Item -ItemType Directory -Path "$folder/data"
        $null = [LoKr.Testing.TinyData]::WriteTickets("$folder/data/1.jsonl", 96, 1)
        $null = [LoKr.Testing.TinyData]::WriteTickets("$folder/eval.jsonl", 60, 2)
        Set-Content -LiteralPath "$folder/tickets.job.psd1" -Value @'
@{
    Base = @{ Path = './model'; Device = 'cpu' }
    Data = @{ Path = './data/*.jsonl'; Validation = './eval.jsonl' }
    Configuration = @{ R = 2; Alpha = 4; TargetModules = 'query', 'value'; TaskType = 'SequenceClassification' }
    Training = @{ MaxSteps = 120; BatchSize = 8; LearningRate = 3e-2; Seed = 3; EvaluateEvery = 20; KeepBest = $true }
    Runs = @{ CheckpointEvery = 5 }
    Gate = @{ Confidence = 0.9 }
    Registry = @{ Path = './registry' }
}
'@
        $folder
    }

    function Get-Problem([string] $Text) {
        Set-Content -LiteralPath "$TestDrive/wrong.job.psd1" -Value $Text
        (Test-LoKrJob -LiteralPath "$TestDrive/wrong.job.psd1").Problems
    }
}

Describe 'A job file' {
    It 'is written with comments, is valid, and names every key' {
        $file = New-LoKrJob "$TestDrive/full.job.psd1" -BasePath './it''s a model' -Data a.jsonl, b.jsonl
        $file.FullName | Should -Be (Join-Path $TestDrive 'full.job.psd1')
        $check = Test-LoKrJob $file.FullName
        $check.IsValid | Should -BeTrue -Because "$($check.Problems)"
        $check.Name | Should -Be 'full'
        (Import-PowerShellDataFile -LiteralPath $file.FullName).Base.Path | Should -Be './it''s a model'
        $text = Get-Content -LiteralPath $file.FullName -Raw
        # The comments are keys too: without their marks the file is as valid.
        $all = $text -replace '(?m)^(\s*)# (?=[A-Z]\w* = |    [A-Z]\w* = |\}$)', '$1' -replace "'Refuse'", "'Grow'"
        Set-Content -LiteralPath "$TestDrive/all.job.psd1" -Value $all
        (Test-LoKrJob "$TestDrive/all.job.psd1").Problems | Should -BeNullOrEmpty
        $schema = [LoKr.Core.Runs.JobSchema]::ToText($null) | ConvertFrom-Json -AsHashtable
        foreach ($section in $schema['properties'].Keys | Where-Object { $_ -notin '$schema', 'configuration', 'training' }) {
            foreach ($key in @($section) + @($schema['properties'][$section]['properties']?.Keys)) {
                $all | Should -Match "(?i)\b$key = " -Because "$section.$key"
            }
        }

        Get-ErrorId { New-LoKrJob "$TestDrive/full.job.psd1" -ErrorAction Stop } | Should -Be 'LoKr.DestinationExists'
        Get-ErrorId { New-LoKrJob "$TestDrive/full.txt" -ErrorAction Stop } | Should -Be 'LoKr.InvalidArgument'
        New-LoKrJob "$TestDrive/new.job.psd1" -WhatIf
        "$TestDrive/new.job.psd1" | Should -Not -Exist
    }

    It 'is JSON as well, with the schema that the repository has' {
        New-LoKrJob "$TestDrive/full.job.json" | Test-LoKrJob -Quiet | Should -BeTrue
        $address = (Get-Content -LiteralPath "$TestDrive/full.job.json" -Raw | ConvertFrom-Json).'$schema'
        Join-Path $root ($address -replace '^.+?/main/') | Should -Exist
        Test-Json -Path "$TestDrive/full.job.json" -SchemaFile (Join-Path $root 'docs/lokr-job.schema.json') | Should -BeTrue
    }

    It 'is never run: <Name>' -ForEach @(
        @{ Name = 'a command'; Text = '@{ Name = Get-Date }'; Line = 1; Says = 'code' }
        @{ Name = 'a subexpression'; Text = "@{`n Name = `$(Get-Date)`n Base = @{ Path = 'm' }; Data = @{ Path = 'd' } }"; Line = 2; Says = 'not a constant' }
        @{ Name = 'a method'; Text = "@{`n Name = 'a'.ToUpper() }"; Line = 2; Says = 'not a constant' }
        @{ Name = 'a variable'; Text = "@{`n Name = `$env:PATH }"; Line = 2; Says = 'not a constant' }
        @{ Name = 'a script block elsewhere'; Text = "@{`n Name = { 'x' } }"; Line = 2; Says = 'only ''notify.script''' }
        @{ Name = 'a statement before it'; Text = "Remove-Item x`n@{ }"; Line = 1; Says = 'not one hashtable' }
        @{ Name = 'a bare time'; Text = "@{ Runs = @{`n CheckpointEvery = 10m } }"; Line = 2; Says = 'quotes' }
        @{ Name = 'a syntax error'; Text = "@{`n Name = 'a"; Line = 2; Says = 'missing' }
        @{ Name = 'a key twice'; Text = "@{`n Name = 'a'`n name = 'b' }"; Line = 3; Says = 'twice|Duplicate' }
    ) {
        $problem = @(Get-Problem $Text)
        $problem.Count | Should -Be 1
        $problem[0].Line | Should -Be $Line
        $problem[0].Message | Should -Match $Says
    }

    It 'trains on packed rows where it says so' {
        Get-Problem "@{`n Base = @{ Path = 'm' }`n Data = @{ Path = 'd' }`n Training = @{ Packing = `$true }`n}" | Should -BeNullOrEmpty
        (Get-Problem "@{`n Base = @{ Path = 'm' }`n Data = @{ Path = 'd' }`n Training = @{ Packing = 'yes' }`n}").Key | Should -Be 'Training.Packing'
    }

    It 'has problems with line and key' {
        $problems = Get-Problem "@{`n Base = @{ Path = 'm' }`n Data = @{ Path = 'd' }`n Training = @{`n  Epochs = 'three'`n }`n Registy = @{ }`n}"
        $problems.Key | Should -Be 'Training.Epochs', 'Registy'
        $problems.Line | Should -Be 5, 7
        (Get-Problem "@{ Base = @{ Path = 'm' }; Data = @{ Path = 'd' }`n Notify = @{ Script = { if } } }").Line | Should -Be 2
        Get-ErrorId { Invoke-LoKrJob "$TestDrive/wrong.job.psd1" -ErrorAction Stop } | Should -Be 'LoKr.JobInvalid'
    }

    It 'completes to job files' {
        $null = New-Item -ItemType File -Path "$TestDrive/complete/a.job.psd1", "$TestDrive/complete/b.txt" -Force
        Get-Completion "Invoke-LoKrJob $TestDrive/complete/" | Split-Path -Leaf | Should -Be 'a.job.psd1'
    }
}

Describe 'A job' {
    It 'publishes, has nothing to do, and tells its script' {
        $folder = Initialize-Workplace 'nights'
        $text = (Get-Content -LiteralPath "$folder/tickets.job.psd1" -Raw).TrimEnd() -replace '\}$', "Notify = @{ Script = { param(`$result) Set-Content -LiteralPath '$folder/told.txt' -Value `"`$(`$result.State) `$(`$result.Version)`" } } }"
        Set-Content -LiteralPath "$folder/tickets.job.psd1" -Value $text
        Invoke-LoKrJob "$folder/tickets.job.psd1" -WhatIf
        "$folder/runs" | Should -Not -Exist
        $first = Invoke-LoKrJob "$folder/tickets.job.psd1" -InformationVariable lines -InformationAction SilentlyContinue
        $first.State | Should -Be 'Published' -Because $first.Message
        $first.ExitCode | Should -Be 0
        $first.Version | Should -Be 1
        "$lines" | Should -Match '(?s)96 rows of 1 file.*Gate passed.*Published, exit code 0'
        Get-Content -LiteralPath "$folder/told.txt" | Should -Be 'Published 1'
        (Get-LoKrRun "$folder/runs/tickets/*").ExitCode | Should -Be 0
        (Get-LoKrAdapterVersion tickets -Registry "$folder/registry" -Alias champion).Card.Job | Should -Be 'tickets'
        $second = Get-Item -LiteralPath "$folder/tickets.job.psd1" | Invoke-LoKrJob
        $second.State | Should -Be 'NothingToDo'
        Get-Display $second | Should -Match 'tickets +NothingToDo +2 '
        Get-Display ($second | Format-List) | Should -Match '(?m)^Champion +: 1'
        (Get-Content -LiteralPath "$folder/runs/tickets/result.json" -Raw | ConvertFrom-Json).state | Should -Be 'NothingToDo'
    }

    It 'gives a result and an error where something is missing' {
        $folder = Initialize-Workplace 'missing'
        Remove-Item -LiteralPath "$folder/model" -Recurse
        $result = Invoke-LoKrJob "$folder/tickets.job.psd1" -ErrorVariable failures -ErrorAction SilentlyContinue
        $result.ExitCode | Should -Be 6
        $failures[0].FullyQualifiedErrorId | Should -BeLike 'LoKr.PathNotFound,*'
        $result = Invoke-LoKrJob "$folder/none.job.psd1" -ErrorVariable failures -ErrorAction SilentlyContinue
        $result.ExitCode | Should -Be 3
    }
}

Describe 'A job in a process without a terminal' -Skip:($IsWindows) {
    BeforeAll {
        $script:work = Initialize-Workplace 'process'
        Set-Content -LiteralPath "$work/nightly.ps1" -Value @"
`$ErrorActionPreference = 'Stop'
Import-Module -Name '$manifest'
try { Invoke-LoKrJob '$work/tickets.job.psd1' -Exit } catch { 'caught' } finally { Set-Content -LiteralPath '$work/finally.txt' -Value 'run' }
'after'
"@
        # Standard output and error go to files; standard input is empty.
        function Invoke-Night([string] $Log) {
            $env:LOG = "$work/$Log"
            & sh -c 'exec "$@" </dev/null >"$LOG" 2>"$LOG.err"' sh dotnet $pwsh -NoProfile -NonInteractive -File "$work/nightly.ps1"
            $LASTEXITCODE
        }
    }

    It 'ends with its code, runs finally blocks, and writes its log and nothing else' {
        Invoke-Night 'night1.log' | Should -Be 0
        $lines = Get-Content -LiteralPath "$work/night1.log"
        $lines.Count | Should -BeGreaterThan 5
        $lines | Where-Object { $_ -cnotmatch '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ' } | Should -BeNullOrEmpty
        $lines[-1] | Should -Match 'Published, exit code 0'
        Get-Content -LiteralPath "$work/night1.log.err" | Should -BeNullOrEmpty
        Get-Content -LiteralPath "$work/finally.txt" | Should -Be 'run'
        Invoke-Night 'night2.log' | Should -Be 2
        Add-Content -LiteralPath "$work/data/1.jsonl" -Value '{"text": "card", "label": "refund"}'
        Invoke-Night 'night3.log' | Should -Be 3
        Get-Content -LiteralPath "$work/night3.log.err" -Raw | Should -Match "'refund'.*LoKr\.LabelUnknown"
    }

    It 'ends with 75 at SIGTERM, and the next start finishes' {
        $folder = Initialize-Workplace 'ended'
        (Get-Content -LiteralPath "$folder/tickets.job.psd1" -Raw) -replace 'MaxSteps = 120', 'MaxSteps = 500' | Set-Content -LiteralPath "$folder/tickets.job.psd1"
        Set-Content -LiteralPath "$folder/nightly.ps1" -Value "Import-Module -Name '$manifest'; Invoke-LoKrJob '$folder/tickets.job.psd1' -Exit"
        $process = Start-Process -FilePath dotnet -ArgumentList $pwsh, '-NoProfile', '-NonInteractive', '-File', "$folder/nightly.ps1" -PassThru -RedirectStandardOutput "$folder/out.log" -RedirectStandardError "$folder/err.log"
        for ($i = 0; $i -lt 1200 -and -not $process.HasExited; $i++) {
            $log = Get-Item -Path "$folder/runs/tickets/*/log.jsonl" -ErrorAction Ignore
            if ($log -and $log.Length -gt 500) {
                break
            }

            Start-Sleep -Milliseconds 50
        }

        kill -TERM $process.Id
        $process.WaitForExit(60000) | Should -BeTrue
        $process.ExitCode | Should -Be 75
        $run = Get-LoKrRun "$folder/runs/tickets/*"
        $run.State | Should -Be 'Interrupted'
        $run.CheckpointStep | Should -Be $run.Step
        $result = Invoke-LoKrJob "$folder/tickets.job.psd1" -InformationAction Ignore
        $result.State | Should -Be 'Published' -Because $result.Message
        $result.Steps | Should -Be 500
        (Get-LoKrRun "$folder/runs/tickets/*").Attempt | Should -Be 2
    }
}
