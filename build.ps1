#!/usr/bin/env pwsh
#Requires -Version 7.6
<#
.SYNOPSIS
    Builds, tests, checks and packages the module. Needs the .NET 10 SDK; everything it does is a dotnet command.

.PARAMETER Task
    Build    builds the solution.
    Test     runs `dotnet test`, the Pester suite included.
    Analyze  runs PSScriptAnalyzer over every script and manifest; any finding fails (needs PSScriptAnalyzer).
    Package  lays out the module in Destination/LoKr and puts it into LoKr.<version>.zip and .nupkg beside it, with its bill of
             materials (LoKr.<version>.cdx.json, CycloneDX) and the checksums of all three (SHA256SUMS).

.PARAMETER Destination
    The folder that Package writes to; out, unless another is given.

.PARAMETER CertificatePath
    A PKCS#12 file (.pfx) with a code-signing certificate and its key. Package signs SHA256SUMS with it (SHA256SUMS.p7s, a
    detached CMS signature: openssl cms -verify -binary -inform DER -in SHA256SUMS.p7s -content SHA256SUMS), and on Windows also
    the files of the module, for Authenticode.

.PARAMETER CertificatePassword
    The password of that file.

.PARAMETER TimestampServer
    The address of a timestamp server, so that Authenticode signatures outlive the certificate.

.EXAMPLE
    ./build.ps1 -Task Build, Test

.EXAMPLE
    pwsh -File build.ps1 -Task Build,Test

.EXAMPLE
    ./build.ps1 -Task Package -Configuration Release

.EXAMPLE
    ./build.ps1 -Task Package -CertificatePath ./signing.pfx -CertificatePassword (Read-Host -AsSecureString)
#>
[CmdletBinding()]
param(
    # With -File a list arrives as one string.
    [ValidateScript({ -not ($_ -split ',' | Where-Object { $_.Trim() -notin 'Build', 'Test', 'Analyze', 'Package' }) }, ErrorMessage = 'Choose from Build, Test, Analyze and Package.')]
    [ArgumentCompletions('Build', 'Test', 'Analyze', 'Package')]
    [string[]] $Task = 'Build',

    [ValidateSet('Debug', 'Release')]
    [string] $Configuration,

    [ValidateNotNullOrEmpty()]
    [string] $Destination = (Join-Path $PSScriptRoot 'out'),

    [ValidateNotNullOrEmpty()]
    [string] $CertificatePath,

    [securestring] $CertificatePassword,

    [ValidateNotNullOrEmpty()]
    [string] $TimestampServer
)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$tasks = @($Task -split ',' | ForEach-Object Trim)
if (-not $Configuration) {
    $Configuration = ($tasks -contains 'Package') ? 'Release' : 'Debug'
}

# What Package needs to know.
$out = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Destination)
$signing = @{ Path = $CertificatePath; Password = $CertificatePassword; TimestampServer = $TimestampServer }

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
        $findings | ForEach-Object { "$([System.IO.Path]::GetRelativePath($root, $_.ScriptPath)):$($_.Line): $($_.RuleName): $($_.Message)" } | Out-Host
        throw "PSScriptAnalyzer: $($findings.Count) findings in $($files.Count) files."
    }

    "PSScriptAnalyzer: no findings in $($files.Count) files."
}

# The certificate that Package signs with; nothing where none is given.
function Get-SigningCertificate {
    if (-not $signing.Path) {
        return
    }

    $password = $signing.Password ? @{ Password = $signing.Password } : @{ NoPromptForPassword = $true }
    $certificate = Get-PfxCertificate -FilePath $signing.Path @password
    if (-not $certificate.HasPrivateKey) {
        throw "$($signing.Path) has no private key to sign with."
    }

    $certificate
}

# Authenticode, which PowerShell checks where the execution policy asks for it. Only Windows can write it.
function Add-ModuleSignature {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory)] [string] $Module,
        [Parameter(Mandatory)] [System.Security.Cryptography.X509Certificates.X509Certificate2] $Certificate
    )

    if (-not $IsWindows) {
        Write-Warning -Message 'The files of the module are signed for Authenticode on Windows only; SHA256SUMS is signed here too.'
        return
    }

    $timestamp = $signing.TimestampServer ? @{ TimestampServer = $signing.TimestampServer } : @{}
    $signed = Get-ChildItem -LiteralPath $Module -Recurse -File -Include 'LoKr*.dll', '*.psd1', '*.ps1xml' |
        Set-AuthenticodeSignature -Certificate $Certificate -HashAlgorithm SHA256 -IncludeChain NotRoot @timestamp
    $failed = @($signed | Where-Object Status -NE 'Valid')
    if ($failed.Count -gt 0) {
        throw "$($failed.Count) of $(@($signed).Count) files were not signed. $($failed[0].Path): $($failed[0].StatusMessage)"
    }
}

# The packages that the module consists of, from what NuGet resolved for this build.
function Write-BillOfMaterial {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory)] [string] $Path,
        [Parameter(Mandatory)] [version] $Version
    )

    Push-Location -LiteralPath $root
    try {
        Invoke-Dotnet tool restore
        # Compiled against, not shipped: PowerShellStandard.Library.
        Invoke-Dotnet dotnet-CycloneDX src/LoKr.PowerShell/LoKr.PowerShell.csproj --disable-package-restore --exclude-filter PowerShellStandard.Library --set-name LoKr --set-version "$Version" --set-type Library --output-format Json --output (Split-Path -Path $Path -Parent) --filename (Split-Path -Path $Path -Leaf)
    }
    finally {
        Pop-Location
    }
}

# SHA256SUMS, as sha256sum -c reads it, and its signature.
function Write-Checksum {
    [CmdletBinding()]
    param(
        [Parameter(Mandatory)] [string[]] $Path,
        [Parameter(Mandatory)] [string] $Destination,
        [System.Security.Cryptography.X509Certificates.X509Certificate2] $Certificate
    )

    $lines = $Path | ForEach-Object { "$((Get-FileHash -LiteralPath $_ -Algorithm SHA256).Hash.ToLowerInvariant())  $(Split-Path -Path $_ -Leaf)`n" }
    $bytes = [System.Text.Encoding]::ASCII.GetBytes(-join $lines)
    [System.IO.File]::WriteAllBytes($Destination, $bytes)

    # The signature of an earlier package is not one of this.
    $signature = "$Destination.p7s"
    if (Test-Path -LiteralPath $signature) {
        Remove-Item -LiteralPath $signature
    }

    if ($Certificate) {
        $message = [System.Security.Cryptography.Pkcs.SignedCms]::new([System.Security.Cryptography.Pkcs.ContentInfo]::new($bytes), $true)
        $message.ComputeSignature([System.Security.Cryptography.Pkcs.CmsSigner]::new($Certificate))
        [System.IO.File]::WriteAllBytes($signature, $message.Encode())
    }
}

function Invoke-PackageTask {
    $certificate = Get-SigningCertificate
    $null = New-Item -ItemType Directory -Path $out -Force
    $module = Join-Path $out 'LoKr'

    # Everything but libtorch, which Install-LoKrRuntime brings.
    Invoke-Dotnet build (Join-Path $root 'src/LoKr.PowerShell') --configuration $Configuration '-t:LayoutModule' "-p:LoKrLayoutPath=$module/"
    Copy-Item -LiteralPath (Join-Path $root 'README.md'), (Join-Path $root 'CHANGELOG.md') -Destination $module
    if ($certificate) {
        Add-ModuleSignature -Module $module -Certificate $certificate
    }

    $info = Test-ModuleManifest -Path (Join-Path $module 'LoKr.psd1')
    $bill = Join-Path $out "LoKr.$($info.Version).cdx.json"
    Write-BillOfMaterial -Path $bill -Version $info.Version
    Copy-Item -LiteralPath $bill -Destination (Join-Path $module 'LoKr.cdx.json')

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

    $sums = Join-Path $out 'SHA256SUMS'
    Write-Checksum -Path $zip, $nupkg, $bill -Destination $sums -Certificate $certificate
    Get-Item -LiteralPath $zip, $nupkg, $bill, $sums
}

foreach ($name in $tasks) {
    & "Invoke-${name}Task"
}
