#!/usr/bin/env pwsh
#Requires -Version 7.6
<#
.SYNOPSIS
    Records the hashes of the native packages that the module installs in src/LoKr.Core/Runtime/KnownPackages.json.

.DESCRIPTION
    Run it when the versions of TorchSharp, libtorch or SkiaSharp in Directory.Packages.props change, and read the difference before you
    commit it: what the file says is what the module accepts. The packages are downloaded from the flat container of a NuGet feed.

.EXAMPLE
    ./tools/Update-KnownPackages.ps1
#>
[CmdletBinding()]
param(
    [uri] $FlatContainer = 'https://api.nuget.org/v3-flatcontainer/'
)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$root = Split-Path -Path $PSScriptRoot -Parent
[xml] $props = Get-Content -LiteralPath (Join-Path $root 'Directory.Packages.props') -Raw
$libtorch = $props.SelectSingleNode('//LibtorchVersion').InnerText
$skia = $props.SelectSingleNode("//PackageVersion[@Include='SkiaSharp']").GetAttribute('Version')

# A package and the platform whose libraries in it are of use. The module itself ships SkiaSharp's library for the other two platforms.
$wanted = @(
    @{ Id = 'libtorch-cpu-linux-x64'; Version = $libtorch; Platform = 'linux-x64' }
    @{ Id = 'libtorch-cpu-win-x64'; Version = $libtorch; Platform = 'win-x64' }
    @{ Id = 'libtorch-cpu-win-arm64'; Version = $libtorch; Platform = 'win-arm64' }
    @{ Id = 'libtorch-cpu-osx-arm64'; Version = $libtorch; Platform = 'osx-arm64' }
    @{ Id = 'skiasharp.nativeassets.win32'; Version = $skia; Platform = 'win-arm64' }
    @{ Id = 'skiasharp.nativeassets.macos'; Version = $skia; Platform = 'osx' }
)

$known = [ordered]@{}
foreach ($package in $wanted) {
    $download = Join-Path ([System.IO.Path]::GetTempPath()) "$([guid]::NewGuid()).nupkg"
    try {
        Invoke-WebRequest -Uri "$FlatContainer$($package.Id)/$($package.Version)/$($package.Id).$($package.Version).nupkg" -OutFile $download
        $files = [ordered]@{}
        $zip = [System.IO.Compression.ZipFile]::OpenRead($download)
        try {
            foreach ($entry in $zip.Entries | Where-Object FullName -Like "runtimes/$($package.Platform)/native/*" | Sort-Object -Property FullName) {
                $stream = $entry.Open()
                $hash = [System.Convert]::ToHexStringLower([System.Security.Cryptography.SHA256]::HashData($stream))
                $stream.Dispose()
                $files[$entry.FullName] = [ordered]@{ length = $entry.Length; sha256 = $hash }
            }
        }
        finally {
            $zip.Dispose()
        }

        $known[$package.Id] = [ordered]@{ version = $package.Version; files = $files }
    }
    finally {
        Remove-Item -LiteralPath $download -ErrorAction Ignore
    }
}

$text = ($known | ConvertTo-Json -Depth 4) -replace "`r`n", "`n"
[System.IO.File]::WriteAllText((Join-Path $root 'src/LoKr.Core/Runtime/KnownPackages.json'), "$text`n")
