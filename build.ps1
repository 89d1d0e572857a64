#!/usr/bin/env pwsh
#Requires -Version 7.6
<#
.SYNOPSIS
    Builds, tests, checks and packages the module. Needs the .NET 10 SDK; everything it does is a dotnet command.

.PARAMETER Task
    Build    builds the solution.
    Test     runs `dotnet test`, the Pester suite included.
    Analyze  runs PSScriptAnalyzer over every script and manifest; any finding fails (needs PSScriptAnalyzer).
    Package  lays out the module in out/LoKr and puts it into out/LoKr.<version>.zip and .nupkg.

.EXAMPLE
    ./build.ps1 -Task Build, Test

.EXAMPLE
    pwsh -File build.ps1 -Task Build,Test

.EXAMPLE
    ./build.ps1 -Task Package -Configuration Release
#>
[CmdletBinding()]
param(
    # With -File a list arrives as one string.
    [ValidateScript({ -not ($_ -split ',' | Where-Object { $_.Trim() -notin 'Build', 'Test', 'Analyze', 'Package' }) }, ErrorMessage = 'Choose from Build, Test, Analyze and Package.')]
    [ArgumentCompletions('Build', 'Test', 'Analyze', 'Package')]
    [string[]] $Task = 'Build',

    [ValidateSet('Debug', 'Release')]
    [string] $Configuration
)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$tasks = @($Task -split ',' | ForEach-Object Trim)
if (-not $Configuration) {
    $Configuration = ($tasks -contains 'Package') ? 'Release' : 'Debug'
}

$root = $PSScriptRoot
$solution = Join-Path $root 'LoKr.slnx'
$builtManifest = Join-Path $root "artifacts/bin/LoKr.PowerShell/$($Configuration.ToLowerInvariant())/LoKr.psd1"

function Invoke-Dotnet {
    [CmdletBinding()]
    param([Parameter(Mandatory, ValueFromRemainingArguments)] [string[]] $Argument)

    # Native errors are told by the exit status here, so that the failing command is named.
    $PSNativeCommandUseErrorActionPreference = $false
    & dotnet @Argument | Out-Host
    if ($LASTEXITCODE -ne 0) {
        throw "dotnet $($Argument -join ' ') ended with status $LASTEXITCODE."
    }
}

function Import-RequiredModule {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory)] [string] $Name,
        [Parameter(Mandatory)] [version] $MinimumVersion,
        [Parameter(Mandatory)] [string] $Task
    )

    if (-not (Get-Module -ListAvailable -Name $Name | Where-Object Version -GE $MinimumVersion)) {
        throw "Task $Task needs the module $Name $MinimumVersion or later. Install it with: Install-PSResource $Name"
    }

    Import-Module -Name $Name -MinimumVersion $MinimumVersion
}

function Invoke-BuildTask {
    Invoke-Dotnet build $solution --configuration $Configuration
}

function Invoke-TestTask {
    Push-Location $root
    try {
        Invoke-Dotnet test --configuration $Configuration
    }
    finally {
        Pop-Location
    }
}

function Invoke-AnalyzeTask {
    Import-RequiredModule -Name PSScriptAnalyzer -MinimumVersion 1.23.0 -Task Analyze
    if (-not (Test-Path -LiteralPath $builtManifest)) {
        throw "Task Analyze checks the manifest beside what it names, in the built module, which is not there. Run: ./build.ps1 -Task Build, Analyze"
    }

    $files = @(
        Get-ChildItem -LiteralPath $root -Recurse -File -Include '*.ps1', '*.psm1', '*.psd1' |
            Where-Object { [System.IO.Path]::GetRelativePath($root, $_.FullName) -notmatch '^(artifacts|out|\.git)[\\/]|^LoKr\.psd1$' }
        Get-Item -LiteralPath $builtManifest
    )
    $findings = @($files | ForEach-Object {
            Invoke-ScriptAnalyzer -Path $_.FullName -Settings (Join-Path $root 'PSScriptAnalyzerSettings.psd1')
        })
    if ($findings.Count -gt 0) {
        $findings | Format-Table -Property ScriptName, Line, RuleName, Message -Wrap | Out-Host
        throw "PSScriptAnalyzer: $($findings.Count) findings in $($files.Count) files."
    }

    "PSScriptAnalyzer: no findings in $($files.Count) files."
}

function Invoke-PackageTask {
    $out = Join-Path $root 'out'
    $module = Join-Path $out 'LoKr'

    # Managed code, manifest, views and help, without libtorch, which Get-LoKrRuntime finds (or says how to get).
    Invoke-Dotnet build (Join-Path $root 'src/LoKr.PowerShell') --configuration $Configuration -t:LayoutModule
    Copy-Item -LiteralPath (Join-Path $root 'README.md'), (Join-Path $root 'CHANGELOG.md') -Destination $module

    $info = Test-ModuleManifest -Path (Join-Path $module 'LoKr.psd1')
    $zip = Join-Path $out "LoKr.$($info.Version).zip"
    Compress-Archive -LiteralPath $module -DestinationPath $zip -Force

    # A local repository makes the nupkg exactly as the gallery would get it.
    $repository = "LoKrPackage$PID"
    $nupkg = Join-Path $out "LoKr.$($info.Version).nupkg"
    if (Test-Path -LiteralPath $nupkg) {
        Remove-Item -LiteralPath $nupkg
    }

    Register-PSResourceRepository -Name $repository -Uri $out -Trusted
    try {
        Publish-PSResource -Path $module -Repository $repository
    }
    finally {
        Unregister-PSResourceRepository -Name $repository
    }

    Get-Item -LiteralPath $zip, $nupkg
}

foreach ($name in $tasks) {
    & "Invoke-${name}Task"
}
