#Requires -Version 7.6
#Requires -Modules LoKr
<#
.SYNOPSIS
    Writes what a session at the prompt shows, at 80 and at 120 columns, into docs/getting-started.md.

.DESCRIPTION
    The commands are below; their output stands between the marks `<!-- transcript 80 -->` and `<!-- end -->` of the page. Runs in
    the root of a clone, in a PowerShell that has the module: dotnet run --project src/LoKr.Shell -- tools/Write-Transcript.ps1

.PARAMETER Check
    Changes nothing, and fails where the page shows something else. Numbers differ from machine to machine and are not compared.
#>
[CmdletBinding()]
param([switch] $Check)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest
$root = Split-Path -Path $PSScriptRoot -Parent
$page = Join-Path $root 'docs/getting-started.md'

$session = @(
    '$model'
    '$model | Get-LoKrModule -Adapted | Select-Object -First 4'
    '$model | Get-LoKrAdapter'
    '$model | Get-LoKrAdapter -ByLayer | Select-Object -First 3'
    '$model | Get-LoKrAdapter -Summary'
    '$model.LastTraining'
    '$model.LastTraining.History | Select-Object -Last 3'
    '$model | Measure-LoKrModel -Data ./tickets.eval.jsonl'
    "'The wifi drops every few minutes.', 'Please send the invoice again.' | Invoke-LoKrModel `$model"
    'Get-LoKrAdapter ./adapter'
    '4, 8, 16 | ForEach-Object { New-LoKrConfig -R $_ -TargetModules query, value } | Measure-LoKrConfig ./tiny-encoder'
)

# Output of the session, as the console of a given width shows it.
function Get-Transcript([int] $Width) {
    $rendering = $PSStyle.OutputRendering
    try {
        $PSStyle.OutputRendering = 'PlainText'
        foreach ($command in $session) {
            "PS> $command"
            (& ([scriptblock]::Create($command)) | Out-String -Width $Width) -split '\r?\n' | ForEach-Object TrimEnd
        }
    }
    finally {
        $PSStyle.OutputRendering = $rendering
    }
}

# What of a text is the same on every machine: names and columns, not figures and the sizes that they are given in.
function Get-Comparable([string] $Text) {
    ($Text -replace '[-+]?\d[\d,.:]*(?:e[-+]?\d+)?', '#' -replace '# (?:B|KB|MB|GB)\b', '# B' -replace '\bcuda:#|\bcpu\b', '#' -replace '-{2,}', '--' -replace '[ \t]+', ' ' -split '\r?\n').TrimEnd() -join "`n"
}

$folder = (New-Item -ItemType Directory -Path (Join-Path ([System.IO.Path]::GetTempPath()) "lokr-transcript-$(New-Guid)")).FullName
Push-Location -LiteralPath $folder
try {
    Copy-Item -LiteralPath (Join-Path $root 'examples/models/tiny-encoder') -Destination . -Recurse
    Copy-Item -Path (Join-Path $root 'examples/data/*.jsonl') -Destination .
    $model = Import-LoKrModel ./tiny-encoder -Label access, billing, email, hardware, network, software -Seed 1 -Device cpu -WarningAction SilentlyContinue
    New-LoKrConfig -R 8 -Alpha 16 -TargetModules all-linear -TaskType SEQ_CLS |
        Add-LoKrAdapter $model -Seed 1 |
        Start-LoKrTraining -Data ./tickets.train.jsonl -ValidationData ./tickets.eval.jsonl -Epochs 5 -BatchSize 16 -LearningRate 5e-3 -WarmupRatio 0.06 -Seed 1 |
        Export-LoKrAdapter -Destination ./adapter

    $old = Get-Content -LiteralPath $page -Raw
    $new = [regex]::Replace($old, '(?s)(<!-- transcript (?<width>\d+) -->\n).*?(<!-- end -->)', {
            $lines = Get-Transcript ([int] $args[0].Groups['width'].Value)
            $text = ($lines -join "`n") -replace '\n{3,}', "`n`n"
            "$($args[0].Groups[1].Value)``````text`n$($text.TrimEnd())`n```````n$($args[0].Groups[2].Value)"
        })
    $model.Dispose()
}
finally {
    Pop-Location
    Remove-Item -LiteralPath $folder -Recurse -Force
}

if (-not $Check) {
    [System.IO.File]::WriteAllText($page, $new)
    return
}

$before = (Get-Comparable $old) -split '\n'
$after = (Get-Comparable $new) -split '\n'
$differences = @(Compare-Object -ReferenceObject $before -DifferenceObject $after -SyncWindow 20)
if ($differences.Count -gt 0) {
    $differences | ForEach-Object { "$($_.SideIndicator -eq '<=' ? 'page:   ' : 'session:') $($_.InputObject)" }
    throw 'docs/getting-started.md does not show what a session shows. Run tools/Write-Transcript.ps1.'
}
