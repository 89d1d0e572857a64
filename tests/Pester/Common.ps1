# What the test files share. Each dot-sources it in BeforeAll.

$script:root = (Resolve-Path -LiteralPath "$PSScriptRoot/../..").Path

# build.ps1 names the module it has built; by hand: $env:LOKR_MODULE = './artifacts/bin/LoKr.PowerShell/debug/LoKr.psd1'
$script:manifest = $env:LOKR_MODULE ? (Resolve-Path -LiteralPath $env:LOKR_MODULE).Path : (Join-Path $root 'artifacts/bin/LoKr.PowerShell/debug/LoKr.psd1')
Import-Module -Name $manifest -Force

$script:encoder = Join-Path $root 'examples/models/tiny-encoder'
$script:train = Join-Path $root 'examples/data/tickets.train.jsonl'
$script:eval = Join-Path $root 'examples/data/tickets.eval.jsonl'
$script:labels = 'access', 'billing', 'email', 'hardware', 'network', 'software'
$script:texts = 'The printer has a paper jam.', 'I forgot my password.', 'Please send the invoice again.'

# The small encoder with a fresh head: the same at every call.
function Get-Model {
    Import-LoKrModel -Path $encoder -Label $labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
}

# The same with an adapter on the queries, and the head trained beside it.
function Get-AdaptedModel {
    $model = Get-Model
    New-LoKrConfig -R 4 -Alpha 8 -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
}

# The id of the error that a script block ends with.
function Get-ErrorId([scriptblock] $Script) {
    try {
        $null = & $Script
    }
    catch {
        return ($_.FullyQualifiedErrorId -split ',')[0]
    }

    throw 'There was no error.'
}

# What people see.
function Get-Display([object] $InputObject, [int] $Width = 120) {
    $PSStyle.OutputRendering = 'PlainText'
    $InputObject | Out-String -Width $Width
}

# What the tab key offers at the end of a line.
function Get-Completion([string] $Line) {
    (TabExpansion2 -inputScript $Line -cursorColumn $Line.Length).CompletionMatches.CompletionText
}
