#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# The module as users import it: manifest, exports, help, what happens on a second import.

BeforeDiscovery {
    $script:commands = (Import-PowerShellDataFile -LiteralPath "$PSScriptRoot/../../LoKr.psd1").CmdletsToExport
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'The module' {
    It 'has a valid manifest with the version of the assemblies' {
        $info = Test-ModuleManifest -Path $manifest
        $assembly = [LoKr.Core.Model.LoKrModel].Assembly.GetName().Version
        "$($assembly.Major).$($assembly.Minor).$($assembly.Build)" | Should -Be "$($info.Version)"
    }

    It 'exports what the manifest lists and nothing else' {
        $expected = (Import-PowerShellDataFile -LiteralPath $manifest).CmdletsToExport | Sort-Object
        (Get-Command -Module LoKr).Name | Sort-Object | Should -Be $expected
    }

    It 'exports exactly the cmdlets of the assembly' {
        $built = [LoKr.PowerShell.Base.LoKrCommand].Assembly.GetTypes() | ForEach-Object { $_.GetCustomAttributes([System.Management.Automation.CmdletAttribute], $false) } |
            ForEach-Object { "$($_.VerbName)-$($_.NounName)" } | Sort-Object
        (Get-Command -Module LoKr).Name | Sort-Object | Should -Be $built
    }

    It 'names everything explicitly and needs PowerShell 7.6' {
        $info = Test-ModuleManifest -Path $manifest
        $info.PowerShellVersion | Should -Be '7.6'
        $info.CompatiblePSEditions | Should -Be 'Core'
        $info.ExportedCmdlets.Keys | Where-Object { $_ -like '*`**' } | Should -BeNullOrEmpty
        $info.ExportedFunctions.Count, $info.ExportedAliases.Count, @($info.RequiredAssemblies).Count | Should -Be 0, 0, 0
    }

    It 'gives PowerShell nothing to compile, and no blank nodes to keep, while it is imported' {
        # A list on lines without commas is a block of statements; with them it is a constant.
        $tree = [System.Management.Automation.Language.Parser]::ParseFile($manifest, [ref] $null, [ref] $null)
        $blocks = $tree.FindAll({ param($node) $node -is [System.Management.Automation.Language.StatementBlockAst] }, $true)
        @($blocks | Where-Object { $_.Statements.Count -gt 1 }).Count | Should -Be 0
        @($tree.FindAll({ param($node) $node -is [System.Management.Automation.Language.VariableExpressionAst] }, $true)).Count | Should -Be 0

        foreach ($name in 'LoKr.Types.ps1xml', 'LoKr.Format.ps1xml') {
            $file = [xml]::new()
            $file.PreserveWhitespace = $true
            $file.Load((Join-Path -Path (Split-Path -Path $manifest) -ChildPath $name))
            $file.SelectNodes('//ScriptProperty | //ScriptMethod').Count | Should -Be 0 -Because $name
            $file.SelectNodes('//text()[normalize-space() = ""] | //comment()').Count | Should -Be 0 -Because $name
        }
    }

    It 'uses approved verbs and one noun prefix' {
        foreach ($command in Get-Command -Module LoKr) {
            $command.Verb | Should -BeIn (Get-Verb).Verb
            $command.Noun | Should -BeLike 'LoKr*'
        }
    }

    It 'can be imported again, and removed' {
        Import-Module -Name $manifest
        Import-Module -Name $manifest -Force
        @(Get-Module -Name LoKr).Count | Should -Be 1
        $model = Get-Model
        Remove-Module -Name LoKr
        Import-Module -Name $manifest
        @('vpn' | Invoke-LoKrModel -Model $model).Count | Should -Be 1
        $model.Dispose()
    }

    It 'names libtorch and its devices' {
        $runtime = Get-LoKrRuntime
        $runtime.LibtorchVersion | Should -Not -BeNullOrEmpty
        $runtime.Devices | Should -Contain 'cpu'
        Test-LoKrRuntime | Should -BeTrue
        Test-LoKrRuntime -Device cpu | Should -BeTrue
        Test-LoKrRuntime -Device cuda:63 | Should -BeFalse
        $runtime.IsLoaded | Should -BeTrue
        (Get-LoKrRuntime -NoLoad).Path | Should -Be $runtime.Path
        Get-ErrorId { Test-LoKrRuntime -Device tpu } | Should -Be 'LoKr.DeviceInvalid'
    }

    It 'says which libtorch a folder lacks' {
        $answer, $reasons = Test-LoKrRuntime -RuntimePath $TestDrive -Verbose 4>&1 | Sort-Object { $_ -is [System.Management.Automation.VerboseRecord] }
        $answer | Should -BeFalse
        $reasons | Should -Not -BeNullOrEmpty
        Get-ErrorId { Get-LoKrRuntime -RuntimePath $TestDrive } | Should -Be 'LoKr.RuntimeNotFound'
    }
}

Describe 'The tests of this folder' {
    It 'call <_>' -ForEach $commands {
        $called = Get-ChildItem -Path "$PSScriptRoot/*.Tests.ps1" | ForEach-Object {
            $ast = [System.Management.Automation.Language.Parser]::ParseFile($_.FullName, [ref] $null, [ref] $null)
            $ast.FindAll({ $args[0] -is [System.Management.Automation.Language.CommandAst] }, $true) | ForEach-Object { $_.GetCommandName() }
        }
        $called | Should -Contain $_
    }
}

Describe 'The class of <_>' -ForEach $commands {
    It 'is sealed, declares its output, can be rehearsed where it changes something, and has switches for yes and no' {
        $type = (Get-Command -Name $_ -Module LoKr).ImplementingType
        $attribute = $type.GetCustomAttributes([System.Management.Automation.CmdletAttribute], $false)[0]
        $type.IsSealed | Should -BeTrue
        $type.Name | Should -Be "$($_.Replace('-', ''))Command"
        $type.GetCustomAttributes([System.Management.Automation.OutputTypeAttribute], $false).Count | Should -BeGreaterThan 0
        $changes = $attribute.VerbName -in 'Set', 'Enable', 'Disable', 'Remove', 'Add', 'Export', 'Merge', 'Start', 'Undo', 'Convert', 'Stop', 'Register', 'Publish', 'Restore', 'Unregister', 'Install', 'Uninstall', 'Resize', 'Join', 'Submit' -or $_ -in 'Import-LoKrAdapter', 'New-LoKrAdapter', 'Invoke-LoKrModel', 'New-LoKrJob', 'Invoke-LoKrJob'
        $attribute.SupportsShouldProcess | Should -Be $changes
        (Get-Command -Name $_).Parameters.Values | Where-Object { $_.ParameterType -eq [bool] } | Should -BeNullOrEmpty
    }
}

Describe 'Help of <_>' -ForEach $commands {
    BeforeAll {
        $script:help = Get-Help -Name $_ -Full
        $script:cmdlet = Get-Command -Name $_ -Module LoKr
        $script:page = Get-Content -LiteralPath (Join-Path $root "docs/en-US/$_.md") -Raw
    }

    It 'is that of its page' {
        $synopsis = [regex]::Match($page, '(?s)## SYNOPSIS\s+(.+?)\s+## ').Groups[1].Value -replace '`' -replace '\s+', ' '
        $help.Synopsis.Trim() | Should -Be $synopsis
    }

    It 'has a synopsis, a description and three examples' {
        $help.Synopsis.Trim() | Should -Not -BeNullOrEmpty
        $help.description | Should -Not -BeNullOrEmpty
        @($help.examples.example).Count | Should -BeGreaterOrEqual 3
        (Get-Help -Name $cmdlet.Name -Examples | Out-String) | Should -Match $cmdlet.Name
    }

    It 'explains every parameter' {
        $common = [System.Management.Automation.Cmdlet]::CommonParameters
        foreach ($name in $cmdlet.Parameters.Keys | Where-Object { $_ -notin $common }) {
            $parameter = $help.parameters.parameter | Where-Object name -EQ $name
            ($parameter.description | Out-String).Trim() | Should -Not -BeNullOrEmpty -Because "-$name is a parameter of $($cmdlet.Name)"
        }
    }

    It 'shows each parameter set' {
        @($help.syntax.syntaxItem).Count | Should -Be $cmdlet.ParameterSets.Count
    }
}

Describe 'Help on the subject' {
    It 'is there' {
        Get-Help -Name about_LoKr | Out-String | Should -Match 'Kronecker'
    }
}
