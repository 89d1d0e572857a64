#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# SIGTERM, SIGHUP and SIGINT as service managers send them: how processes end, in pwsh and in LoKr.Shell, and what they leave on the disk.

BeforeDiscovery {
    $script:missing = $IsWindows -or -not (Test-Path -LiteralPath ($env:LOKR_SHELL ? $env:LOKR_SHELL : "$PSScriptRoot/../../artifacts/bin/LoKr.Shell/debug/LoKr.Shell.dll"))
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:folder = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/bert")
    $script:setUp = @"
        if (-not (Get-Module -Name LoKr)) { Import-Module -Name '$manifest' }
        `$model = Import-LoKrModel '$folder' -Label network, access, billing -Seed 1 -Device cpu -WarningAction SilentlyContinue
        `New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier | Add-LoKrAdapter `$model
        `$ids = [TorchSharp.torch]::tensor([long[]] (2, 5, 6, 3)).reshape(1, 4)
        `$mask = [TorchSharp.torch]::ones_like(`$ids)
        `$answer = [TorchSharp.torch]::tensor([long[]] 1)

        # Says that the thread is in code of the module, which it is as long as the training runs.
        function Start-Training {
            `$model | Start-LoKrTraining -Batch 1 -MaxSteps 1000000000 -Loss {
                if (`$script:count++ -eq 3) { [Console]::Out.WriteLine('working') }
                [TorchSharp.torch+nn+functional]::cross_entropy(`$model.Module.Classify(`$ids, `$mask), `$answer)
            }
        }
"@
}

Describe 'A signal' -Skip:$missing {
    It 'ends <Program> <Option> with <Code> at SIG<Signal> in a training, whatever the script catches' -ForEach @(
        @{ Program = 'pwsh'; Option = '-File'; Signal = 'TERM'; Code = 143 }
        @{ Program = 'pwsh'; Option = '-File'; Signal = 'HUP'; Code = 129 }
        @{ Program = 'pwsh'; Option = '-Command'; Signal = 'TERM'; Code = 143 }
        @{ Program = 'pwsh'; Option = '-File'; Signal = 'INT'; Code = 130 }
        @{ Program = 'LoKr.Shell'; Option = '-File'; Signal = 'TERM'; Code = 143 }
        @{ Program = 'LoKr.Shell'; Option = '-Command'; Signal = 'INT'; Code = 130 }
        @{ Program = 'LoKr.Shell'; Option = '-NoExit -Command'; Signal = 'TERM'; Code = 143 }
    ) {
        Skip-IgnoredInterrupt $Signal
        $null = New-Item -ItemType Directory -Path "$TestDrive/run" -Force
        Remove-Item -Path "$TestDrive/run/*" -Recurse
        Set-Content -LiteralPath "$TestDrive/inner.ps1" -Value @"
            # A finally block of an engine that ends loads no module by itself.
            Import-Module Microsoft.PowerShell.Management
            trap { 'trapped'; continue }
            $setUp
            try { Start-Training; 'next statement' }
            catch { 'caught' }
            finally {
                `$model | Export-LoKrAdapter -Destination '$TestDrive/run/adapter'
                Set-Content -LiteralPath '$TestDrive/run/reason.txt' -Value `$model.LastTraining.StopReason
            }
            'end of the inner script'
"@
        $script = Write-Script "`$ErrorActionPreference = 'SilentlyContinue'; try { & '$TestDrive/inner.ps1' } catch { 'caught outside' } finally { [Console]::Out.WriteLine('finally') }; 'end'"
        $arguments = ($Option -split ' ') + $($Option -like '*-Command' ? "& '$script'; 'next command'" : $script)
        $result = Invoke-Shell $arguments -Program ($Program -eq 'pwsh' ? $pwsh : $shell) -Signal $Signal -After working
        $result.ExitCode | Should -Be $Code -Because $result.Error
        $result.Output | Should -Be 'working', 'finally'
        $result.Error | Should -Match "SIG${Signal}: the process ends with exit code $Code"

        # At SIGINT it is the console that stops the command.
        Get-Content -LiteralPath "$TestDrive/run/reason.txt" | Should -Be ($Signal -eq 'INT' ? 'Canceled' : 'Signal')
        (Get-LoKrAdapter -Path "$TestDrive/run/adapter").ModuleCount | Should -BeGreaterThan 0
    }

    It 'decides the exit code, also where a finally block exits' {
        $result = Invoke-Shell (Write-Script "$setUp`ntry { Start-Training } finally { exit 5 }") -Program $pwsh -Signal TERM -After working
        $result.ExitCode | Should -Be 143
    }

    It 'stops a command in the middle of its input' {
        $result = Invoke-Shell (Write-Script @"
            $setUp
            `$row = [pscustomobject] @{ label = 'network' } | Add-Member -PassThru -MemberType ScriptProperty -Name text -Value {
                [Console]::Out.WriteLine('working')
                Start-Sleep -Seconds 2
                'vpn'
            }
            try { `$model | Measure-LoKrModel -Data `$row; 'next statement' } catch { 'caught' } finally { [Console]::Out.WriteLine('finally') }
"@) -Program $pwsh -Signal TERM -After working
        $result.ExitCode | Should -Be 143 -Because $result.Error
        $result.Output | Select-Object -Unique | Should -Be 'working', 'finally'
    }

    It 'stops the commands around one of the module: <Name>' -ForEach @(
        @{ Name = 'one that feeds it'; Text = '& { $folder; [Console]::Out.WriteLine("working"); Start-Sleep -Seconds 1000 } | Import-LoKrModel -Label a, b, c -WarningAction SilentlyContinue' }
        @{ Name = 'one that it feeds'; Text = 'Import-LoKrModel $folder -Label a, b, c -WarningAction SilentlyContinue | ForEach-Object { [Console]::Out.WriteLine("working"); Start-Sleep -Seconds 1000 }' }
    ) {
        $result = Invoke-Shell (Write-Script "$setUp`n`$folder = '$folder'; try { $Text; 'next statement' } catch { 'caught' } finally { [Console]::Out.WriteLine('finally') }; 'end'") -Program $pwsh -Signal TERM -After working
        $result.ExitCode | Should -Be 143 -Because $result.Error
        $result.Output | Where-Object { $_ -ne 'Microsoft.PowerShell.Commands.Internal.Format' } | Should -Contain 'finally'
        $result.Output | Should -Not -Contain 'caught'
        $result.Output | Should -Not -Contain 'end'
    }

    It 'ends the script that waits for a command in another runspace: <Name>' -ForEach @(
        @{ Name = 'Start-ThreadJob'; Text = 'Start-ThreadJob -ScriptBlock $work | Receive-Job -Wait' }
        @{ Name = 'ForEach-Object -Parallel'; Text = '1, 2, 3 | ForEach-Object -ThrottleLimit 1 -Parallel ([scriptblock]::Create("$work"))' }
    ) {
        $result = Invoke-Shell (Write-Script @"
            `$work = {
                $setUp
                try { Start-Training } finally { [Console]::Out.WriteLine('finally of the job') }
            }
            try { $Text } catch { 'caught' } finally { [Console]::Out.WriteLine('finally') }
            'end'
"@) -Program $pwsh -Signal TERM -After working
        $result.ExitCode | Should -Be 143 -Because $result.Error
        $result.Output | Sort-Object | Should -Be 'finally', 'finally of the job', 'working'
    }
}

# One command takes objects without an end, so that the signal always meets it, at a moment of its own.
Describe 'A signal while <Name> writes' -Skip:$missing -ForEach @(
    @{
        Name = 'a merge on disk'; Rest = '.out.lokr-merge'
        Item = '[pscustomobject] @{ Adapter = "$place/a$version"; Destination = "$work/out" }'; Command = 'Merge-LoKrAdapter -Path "$place/base" -Force -WarningAction SilentlyContinue'
    }
    @{ Name = 'the export of a model'; Rest = ''; Item = '[pscustomobject] @{ Destination = "$work/out" }'; Command = 'Export-LoKrModel -Model $model -Force' }
    @{ Name = 'a conversion'; Rest = ''; Item = '"$place/a$version"'; Command = 'Convert-LoKrAdapter -Destination "$work/out" -Format DiffusersModel -Force' }
    @{ Name = 'a conversion to LoRA'; Rest = ''; Item = '"$place/a$version"'; Command = 'Convert-LoKrAdapter -Destination "$work/out" -LoraRank 4 -Force' }
) {
    BeforeAll {
        $script:place = (New-Item -ItemType Directory -Path "$TestDrive/$($Name -replace ' ', '-')").FullName
        $script:model = Import-LoKrModel $folder -Label network, access, billing -Seed 1 -Device cpu -WarningAction SilentlyContinue
        $model | Export-LoKrModel -Destination "$place/base" -MaxShardSize 4KB
        foreach ($version in 0, 1) {
            New-LoKrConfig -R 2 -Alpha (2 + $version) -InitWeights Random -TargetModules query, value, dense -ModulesToSave @() |
                Add-LoKrAdapter $model -Name "a$version" -Seed 1 -WarningAction SilentlyContinue
            $model | Export-LoKrAdapter -Name "a$version" -Destination "$place/a$version" -WarningAction SilentlyContinue
        }

        # An export refuses adapters that are not merged.
        'a0', 'a1' | ForEach-Object { $model | Remove-LoKrAdapter -Name $_ }

        function Write-Version([int] $Version, [string] $Work) {
            $version, $work = $Version, $Work
            $null = & ([scriptblock]::Create("$Item | $Command"))
        }

        # Every file by name and content, which does not depend on where the folder is.
        function Read-Version([string] $Path) {
            (Get-ChildItem -LiteralPath $Path -Recurse -File -Force | Sort-Object -Property FullName | ForEach-Object {
                "$([System.IO.Path]::GetRelativePath($Path, $_.FullName)) $((Get-FileHash -LiteralPath $_.FullName).Hash)"
            }) -join "`n"
        }

        $script:work = (New-Item -ItemType Directory -Path "$place/work").FullName
        $script:versions = @(foreach ($version in 0, 1) {
                Write-Version $version "$place/expected$version"
                Read-Version "$place/expected$version/out"
            })
    }

    AfterAll {
        $model.Dispose()
    }

    It 'ends the process with <Code> at SIG<Signal>, and loses nothing' -ForEach @(
        @{ Signal = 'TERM'; Code = 143 }
        @{ Signal = 'INT'; Code = 130 }
    ) {
        Skip-IgnoredInterrupt $Signal
        $result = Invoke-Shell (Write-Script @"
            Import-Module -Name '$manifest'
            `$place, `$work = '$place', '$work'
            `$model = Import-LoKrModel '$folder' -Label network, access, billing -Seed 1 -Device cpu -WarningAction SilentlyContinue
            try {
                0..1000000 | ForEach-Object {
                    `$version = `$_ % 2
                    if (`$_ -eq 4) { [Console]::Out.WriteLine('working') }
                    $Item
                } | $Command | Out-Null
            }
            catch { 'caught' } finally { [Console]::Out.WriteLine('finally') }
            'end'
"@) -Program $pwsh -Signal $Signal -After working
        $result.ExitCode | Should -Be $Code -Because $result.Error
        $result.Output | Should -Be 'working', 'finally'
        Read-Version "$work/out" | Should -BeIn $versions
        Get-ChildItem -LiteralPath $work -Force -Name | Where-Object { $_ -notin 'out', $Rest } | Should -BeNullOrEmpty

        # The next run finishes what was begun, or begins anew.
        Write-Version 1 $work
        Read-Version "$work/out" | Should -Be $versions[1]
        Get-ChildItem -LiteralPath $work -Force -Name | Should -Be 'out'
    }
}
