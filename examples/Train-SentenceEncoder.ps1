#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Trains a sentence encoder for a search: over the module's own help (a question in, a cmdlet out), or over pairs of your own.

.DESCRIPTION
    What is learned comes from the help: the sentences of the descriptions, the titles of the examples and the descriptions of the
    parameters are what people look for, the synopsis of their cmdlet is what they find. Questions that were written by hand measure it
    before and after: how often the right cmdlet comes first, and among the first ten.

    With -Data and -ValidationData the same with pairs of your own. What is searched are the positives of both files.

    Lines for people go to the host; the output is one object with the figures.

.EXAMPLE
    ./examples/Train-SentenceEncoder.ps1

.EXAMPLE
    ./examples/Train-SentenceEncoder.ps1 -ModelPath ./all-MiniLM-L6-v2 -Data ./train.jsonl -ValidationData ./eval.jsonl -Epochs 2 -BatchSize 32 -LearningRate 2e-3 -Destination ./search

.EXAMPLE
    dotnet run --project src/LoKr.Shell -- examples/Train-SentenceEncoder.ps1
#>
[CmdletBinding()]
param(
    # Folder of any encoder; the default is the small one of this repository.
    [string] $ModelPath = "$PSScriptRoot/models/tiny-encoder",

    # JSONL, JSON, CSV or Parquet with query and positive; without it the help of the module.
    [string] $Data,

    # The same, to measure by; for the help JSONL with query and relevant, the name of the cmdlet.
    [string] $ValidationData = "$PSScriptRoot/data/help.eval.jsonl",

    # Column with the names of the documents in both files: documents of equal texts are told apart by it.
    [string] $IdColumn,

    # What is asked at the end.
    [string[]] $Question = @('How do I go back to the previous version?', 'merge an adapter into a model', 'is my training data any good'),

    # Passes over the data.
    [int] $Epochs = 8,

    # Highest learning rate.
    [double] $LearningRate = 1e-2,

    # Rank of the Kronecker factors.
    [int] $R = 8,

    # The delta weight is scaled by Alpha / R.
    [double] $Alpha = 16,

    # The partners of the other rows of a batch are the wrong answers.
    [int] $BatchSize = 32,

    # Longest text in tokens; longer ones are cut.
    [int] $MaxLength = 64,

    # Ends after so many steps; 0 for whole epochs.
    [int] $MaxSteps = 0,

    # auto, cpu, cuda or cuda:N.
    [string] $Device = 'auto',

    [int] $Seed = 0,

    # Folder for the merged model, which sentence-transformers loads; without it nothing is written.
    [string] $Destination,

    # Replaces the folder if it exists.
    [switch] $Force
)

$ErrorActionPreference = 'Stop'

function Show-Figure([string] $Text, [object[]] $Value) {
    # Figures look the same whatever the language of the machine is.
    Write-Information -MessageData ([string]::Format([cultureinfo]::InvariantCulture, $Text, $Value)) -InformationAction Continue
}

function Get-PlainText($Text) {
    # Pages of the help wrap their lines.
    (@($Text).ForEach{ "$_" } -join ' ') -replace '\s+', ' '
}

# What a person might look for, and the document that answers it: the name of the cmdlet in words, and its synopsis.
function Get-HelpPair {
    $pairs = foreach ($command in Get-Command -Module LoKr -CommandType Cmdlet) {
        $help = Get-Help -Name $command.Name -Full
        $document = "$($command.Name -creplace 'LoKr' -creplace '-', ' ' -creplace '(?<=[a-z])(?=[A-Z])', ' '): $((Get-PlainText $help.Synopsis).Trim())"
        $sentences = @((Get-PlainText $help.description.Text) -split '(?<=[.:]) ' | Where-Object Length -GT 10)
        $titles = @($help.examples.example).ForEach{ $_.title -replace '^[\s-]*(Example \d+:?)?|[\s-]*$' }
        $descriptions = @($help.parameters.parameter).ForEach{ (Get-PlainText $_.description.Text) -replace '(?<=[.:]) .*' }
        @($titles) + @($descriptions) + $sentences | Where-Object { $_ } | Sort-Object -Unique | ForEach-Object { @{ id = $command.Name; query = "$_"; positive = $document } }
    }

    # A parameter that many cmdlets share tells nothing about any of them.
    $pairs | Group-Object -Property { $_.query } | Where-Object Count -EQ 1 | ForEach-Object { $_.Group[0] }
}

if ($Data) {
    $path = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Data)
    $training = @([LoKr.Core.Data.DataReader]::ReadFile($path))
    $documents = @($training | ForEach-Object { $IdColumn ? @{ $IdColumn = $_.Fields[$IdColumn]; document = "$($_.Fields['positive'])" } : @{ document = "$($_.Fields['positive'])" } })
}
else {
    $training = @(Get-HelpPair)
    $documents = @($training | Group-Object -Property { $_.id } | ForEach-Object { @{ id = $_.Name; document = $_.Group[0].positive } })
}

Show-Figure '{0} documents, {1} pairs to learn from' $documents.Count, $training.Count

$settings = @{
    Data           = $training
    ValidationData = @($ValidationData) + $documents
    Epochs         = $Epochs
    BatchSize      = $BatchSize
    MaxLength      = $MaxLength
    LearningRate   = $LearningRate
    WarmupRatio    = 0.06
    NoDuplicates   = $true
    EvaluateBefore = $true
    EvaluateEvery  = [int]::MaxValue
    Seed           = $Seed
}
if ($IdColumn) {
    $settings.Column = @{ id = $IdColumn }
}

if ($MaxSteps -gt 0) {
    $settings.MaxSteps = $MaxSteps
}

$model = Import-LoKrModel -Path $ModelPath -Device $Device -WarningAction SilentlyContinue
try {
    New-LoKrConfig -R $R -Alpha $Alpha -TargetModules all-linear | Add-LoKrAdapter -Model $model -Seed $Seed |
        Start-LoKrTraining @settings -WarningAction SilentlyContinue
    $result = $model.LastTraining
    Show-Figure 'recall@1 {0:N3} -> {1:N3}, recall@10 {2:N3} -> {3:N3}, MRR@10 {4:N3} -> {5:N3}' `
        $result.Before.RecallAt1, $result.After.RecallAt1, $result.Before.RecallAt10, $result.After.RecallAt10, $result.Before.MrrAt10, $result.After.MrrAt10
    foreach ($found in $Question | Where-Object { $_ } | Invoke-LoKrModel $model -Corpus $documents -Top 1) {
        Show-Figure '  {0} -> {1} ({2:N2})' $found.Query, ($found.Id ? $found.Id : $found.Text), $found.Score
    }

    if ($Destination) {
        $model | Merge-LoKrAdapter | Export-LoKrModel -Destination $Destination -Force:$Force
        Show-Figure 'exported to {0}' $Destination
    }

    [pscustomobject]@{
        ModelPath               = $ModelPath
        Documents               = $documents.Count
        Pairs                   = $training.Count
        Questions               = $result.After.RowCount
        Steps                   = $result.History.Count
        RecallAt1Before         = $result.Before.RecallAt1
        RecallAt1               = $result.After.RecallAt1
        RecallAt10Before        = $result.Before.RecallAt10
        RecallAt10              = $result.After.RecallAt10
        MrrAt10Before           = $result.Before.MrrAt10
        MrrAt10                 = $result.After.MrrAt10
        TrainableParameterCount = $result.TrainableParameterCount
        Elapsed                 = $result.Elapsed
        Destination             = $Destination
    }
}
finally {
    $model.Dispose()
}
