#Requires -Version 7.6
<#
.SYNOPSIS
    Runs the Pester tests of a folder and writes one line of JSON a test to a file: Name, Result and Message.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $Pester,
    [Parameter(Mandatory)] [string] $Suite,
    [Parameter(Mandatory)] [string] $Destination
)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest
Import-Module -Name $Pester

function Get-Message([object[]] $Record) {
    ($Record | ForEach-Object { $_.DisplayErrorMessage, $_.DisplayStackTrace }) -join [Environment]::NewLine
}

$settings = New-PesterConfiguration
$settings.Run.Path = $Suite
$settings.Run.PassThru = $true
$settings.Output.Verbosity = 'Detailed'
$settings.Output.RenderMode = 'Plaintext'
$result = Invoke-Pester -Configuration $settings

# A file that cannot be read, and a block whose set-up or clean-up fails, are not tests of their own; without these lines they would pass in silence.
$broken = @(
    $result.FailedContainers | ForEach-Object { [pscustomobject] @{ Name = "$($_.Item)"; Errors = $_.ErrorRecord } }
    $result.FailedBlocks | ForEach-Object { [pscustomobject] @{ Name = "$($_.BlockContainer): $($_.ExpandedPath)"; Errors = $_.ErrorRecord } }
)
$lines = @(
    foreach ($test in $result.Tests) {
        $file = Split-Path -Path "$($test.Block.BlockContainer)" -Leaf
        @{
            Name    = "$($file -replace '\.Tests\.ps1$'): $($test.ExpandedPath)"
            Result  = "$($test.Result)"
            Message = Get-Message $test.ErrorRecord
        }
    }

    foreach ($item in $broken) {
        @{ Name = Split-Path -Path $item.Name -Leaf; Result = 'Failed'; Message = Get-Message $item.Errors }
    }
)
$lines | ForEach-Object { ConvertTo-Json -InputObject $_ -Compress } | Set-Content -LiteralPath $Destination -Encoding utf8NoBOM
