#Requires -Version 7.6
# The steps of clean-install.sh, in the clean process. Each writes one line; the first that fails ends the script with status 1.
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $Module,
    [Parameter(Mandatory)] [string] $Repository,
    [Parameter(Mandatory)] [string] $Packages,
    [switch] $HasNetwork
)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

Register-PSResourceRepository -Name Local -Uri $Repository -Trusted
Publish-PSResource -Path $Module -Repository Local
$package = Get-ChildItem -LiteralPath $Repository -Filter *.nupkg
Remove-Item -LiteralPath $Module -Recurse
"package: $([math]::Round($package.Length / 1e6, 1)) MB"
if ($package.Length -gt 15e6) {
    throw 'The package is larger than 15 MB.'
}

Install-PSResource -Name LoKr -Repository Local -TrustRepository
Import-Module -Name LoKr
$installed = Get-Module -Name LoKr
"imported: LoKr $($installed.Version) from $([System.IO.Path]::GetRelativePath($HOME, $installed.ModuleBase))"
if (-not $installed.ModuleBase.StartsWith($HOME)) {
    throw "The module is that in $($installed.ModuleBase)."
}

try {
    $null = Get-LoKrRuntime
    throw 'There is a runtime before one is installed.'
}
catch {
    if ($_.Exception.GetType().Name -ne 'LoKrException') {
        throw
    }

    "before: $($_.FullyQualifiedErrorId): $($_.ErrorDetails.RecommendedAction)"
}

if (-not $HasNetwork) {
    # The sources of NuGet's configuration cannot be reached, and the error says how to do without.
    try {
        $null = Install-LoKrRuntime
        throw 'A runtime was downloaded without a network.'
    }
    catch {
        if ($_.Exception.GetType().Name -ne 'LoKrException') {
            throw
        }

        "no network: $($_.FullyQualifiedErrorId)"
    }
}

$runtime = Install-LoKrRuntime -Source $Packages
"installed: $($runtime.LibtorchVersion) $($runtime.Flavor) $($runtime.Source)"
"listed: $((Get-LoKrRuntime -ListAvailable).Source -join ' ')"

$model = Import-LoKrModel ./tiny-encoder -Label access, billing, email, hardware, network, software -Seed 1 -WarningAction SilentlyContinue
New-LoKrConfig -R 8 -Alpha 16 -TargetModules query, value -ModulesToSave classifier |
    Add-LoKrAdapter $model -Seed 1 |
    Start-LoKrTraining -Data ./tickets.train.jsonl -ValidationData ./tickets.eval.jsonl -Epochs 2 -LearningRate 2e-3 -Seed 1 |
    Merge-LoKrAdapter |
    Export-LoKrModel -Destination ./merged
"trained: $($model.LastTraining.After.Accuracy -gt 0.7)"
$answer = 'The printer has a paper jam.' | Invoke-LoKrModel $model
$again = 'The printer has a paper jam.' | Invoke-LoKrModel (Import-LoKrModel ./merged)
"classified: $($answer.Label), and $($again.Label) by the exported model"
if ($answer.Label -ne $again.Label) {
    throw 'The exported model answers otherwise.'
}

$image = [TorchSharp.torch]::zeros(4, 6, 3, [TorchSharp.torch+ScalarType]::Byte)
[LoKr.Models.Diffusion.ImageFile]::WritePng("$PWD/image.png", $image)
"images: $([LoKr.Models.Diffusion.ImageFile]::ReadSize("$PWD/image.png"))"

Get-LoKrRuntime -ListAvailable | Uninstall-LoKrRuntime
"after: $(@(Get-LoKrRuntime -ListAvailable | Where-Object { -not $_.IsLoaded }).Count) runtimes"
