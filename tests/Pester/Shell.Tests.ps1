#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# LoKr.Shell as scripts and services see it: arguments, exit status, streams, signals, built-in cmdlets. LOKR_SHELL names the build.

BeforeDiscovery {
    $script:shell = $env:LOKR_SHELL ? $env:LOKR_SHELL : "$PSScriptRoot/../../artifacts/bin/LoKr.Shell/debug/LoKr.Shell.dll"
    $script:missing = -not (Test-Path -LiteralPath $shell)
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'LoKr.Shell' -Skip:$missing {
    It 'binds the arguments of a script by name, position and switch' {
        $script = Write-Script @'
            param([string] $ModelPath, [int] $Epochs = 1, [switch] $Fast, [string[]] $Rest, [switch] $Off)
            "$ModelPath|$Epochs|$Fast|$($Rest -join ',')|$Off|$($PSScriptRoot -eq [IO.Path]::GetDirectoryName($PSCommandPath))"
'@
        $result = Invoke-Shell $script, '-ModelPath', 'a b', '-Epochs:3', '-Fast', 'x', '-Off:$false'
        $result.Output | Should -Be 'a b|3|True|x|False|True'
        $result.ExitCode | Should -Be 0
    }

    It 'ends with <Status> after the script: <Text>' -ForEach @(
        @{ Text = "'fine'"; Status = 0 }
        @{ Text = 'exit 7'; Status = 7 }
        @{ Text = 'exit'; Status = 0 }
        @{ Text = "throw 'no'"; Status = 1 }
        @{ Text = "`$ErrorActionPreference = 'Stop'; Import-LoKrModel ./nowhere; 'not here'"; Status = 1 }
        @{ Text = "try { throw 'no' } catch { exit 3 }"; Status = 3 }
        @{ Text = 'if ('; Status = 1 }
    ) {
        $result = Invoke-Shell (Write-Script $Text)
        $result.ExitCode | Should -Be $Status
        $result.Output | Should -Not -Contain 'not here'
        $result.Error.Length -gt 0 | Should -Be ($Status -eq 1)
    }

    It 'ends with <Status> after the command: <Text>' -ForEach @(
        @{ Text = '(New-LoKrConfig -R 4).R'; Status = 0; Shows = '4' }
        @{ Text = 'New-LoKrConfig -R 0'; Status = 1; Shows = $null }
        @{ Text = 'exit 5'; Status = 5; Shows = $null }
    ) {
        $result = Invoke-Shell '-Command', $Text
        $result.ExitCode | Should -Be $Status
        $result.Output | Should -Be $Shows
    }

    It 'shows where an error is' {
        $result = Invoke-Shell (Write-Script "`nNew-LoKrConfig -R 0")
        $result.Error | Should -Match 'New-LoKrConfig'
        $result.Error | Should -Match 'script\.ps1:2'
        $result.Error | Should -Match 'R is 0'
        $result.Output | Should -BeNullOrEmpty
    }

    It 'writes the views of the module' {
        $text = (Invoke-Shell '-Command', 'New-LoKrConfig -R 4 -TargetModules query, value').Output -join "`n"
        $text | Should -Match 'TargetModules +: query, value'
        $text | Should -Not -Match 'UseEffectiveConv2d'
    }

    It 'reads standard input' {
        (Invoke-Shell '-Command', '-' -InputText "3`nforeach (`$x in 6) { `$x }`n").Output | Should -Be '3', '6'
        (Invoke-Shell '-Command', '-' -InputText "exit 9`n'not here'`n").ExitCode | Should -Be 9
    }

    It 'tells wrong options from errors of scripts' {
        (Invoke-Shell '-Nonsense').ExitCode | Should -Be 64
        (Invoke-Shell "$TestDrive/nothing.ps1").ExitCode | Should -Be 64
        (Invoke-Shell '-Help').ExitCode | Should -Be 0
    }

    It 'fails in place of asking with -NonInteractive' {
        $result = Invoke-Shell '-NonInteractive', '-Command', 'Get-LoKrConfig'
        $result.ExitCode | Should -Be 1
        $result.Error | Should -Match 'Path'
    }

    It 'has the built-in cmdlets and the modules of pwsh' {
        $result = Invoke-Shell '-Command', @'
            @{ Rank = 4 } | ConvertTo-Json -Compress
            Get-ChildItem -LiteralPath $PSHOME -Filter pwsh* | Select-Object -First 1 | ForEach-Object { $_.GetType().Name }
            Add-Type -TypeDefinition 'public static class Compiled { public const int Value = 7; }'
            [Compiled]::Value
            Start-Job { (New-LoKrConfig -R 3).R } | Receive-Job -Wait -AutoRemoveJob
            Start-ThreadJob { 5 } | Receive-Job -Wait -AutoRemoveJob
            (Get-Command -Name Compress-Archive, Find-PSResource, Set-PSReadLineOption).Count
            (Get-Module).Name -contains 'LoKr'
'@
        $result.Error | Should -BeNullOrEmpty
        $result.Output | Should -Be '{"Rank":4}', 'FileInfo', '7', '3', '5', '3', 'True'
    }

    It 'describes an adapter file as JSON' {
        $model = Get-TinyModel
        New-LoKrConfig -R 2 -TargetModules query -ModulesToSave @() | Add-LoKrAdapter -Model $model | Export-LoKrAdapter -Destination "$TestDrive/x.safetensors" -Format Kohya
        $model.Dispose()
        $result = Invoke-Shell '-Command', 'Get-LoKrAdapter ./x.safetensors | Select-Object Name, Format | ConvertTo-Json'
        $result.ExitCode | Should -Be 0
        $described = $result.Output | ConvertFrom-Json
        $described.Name, $described.Format | Should -Be 'x.safetensors', 'Kohya'
    }

    It 'runs finally on Ctrl+C' -Skip:$IsWindows {
        Skip-IgnoredInterrupt
        $result = Invoke-Shell (Write-Script "try { 'ready'; while (`$true) { [Threading.Thread]::Sleep(20) } } finally { [Console]::Out.WriteLine('finally') }") -Signal INT -After ready
        $result.Output | Should -Contain 'finally'
    }
}
