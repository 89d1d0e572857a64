#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# SIGTERM and SIGHUP as service managers send them: how processes end, in pwsh and in LoKr.Shell.

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
        @{ Program = 'LoKr.Shell'; Option = '-File'; Signal = 'TERM'; Code = 143 }
        @{ Program = 'LoKr.Shell'; Option = '-NoExit -Command'; Signal = 'TERM'; Code = 143 }
    ) {
        $null = New-Item -ItemType Directory -Path "$TestDrive/run" -Force
        Remove-Item -Path "$TestDrive/run/*" -Recurse
        Set-Content -LiteralPath "$TestDrive/inner.ps1" -Value @"
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
        Get-Content -LiteralPath "$TestDrive/run/reason.txt" | Should -Be 'Signal'
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
