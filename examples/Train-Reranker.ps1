#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Trains a reranker: which help page answers a support ticket?

.DESCRIPTION
    A reranker reads a query and a text together and says how well they fit, with one number. The script makes pairs of tickets and help
    pages from examples/data, trains LoKr and a new head of one label on a small encoder (examples/models/tiny-encoder), and compares
    how the eighteen pages are ordered for 120 tickets that the training did not see, before and after. With -Destination the merged
    model is exported: a folder that CrossEncoder of sentence-transformers loads.

    Lines for people go to the host; the output is one object with the figures. It takes less than a minute on two cores.

.EXAMPLE
    ./examples/Train-Reranker.ps1

.EXAMPLE
    dotnet run --project src/LoKr.Shell -- examples/Train-Reranker.ps1 -Destination ./reranker
#>
[CmdletBinding()]
[OutputType([pscustomobject])]
param(
    # Folder of an encoder, or of a decoder that classifies.
    [string] $ModelPath = "$PSScriptRoot/models/tiny-encoder",

    # Passes over the pairs.
    [int] $Epochs = 6,

    # Highest learning rate of LoKr; the new head has ten times as much.
    [double] $LearningRate = 5e-3,

    # Rank of the Kronecker factors.
    [int] $R = 8,

    # Ends the training after so many steps; 0 for whole epochs.
    [int] $MaxSteps = 0,

    [int] $Seed = 1,

    # Folder for the merged model; without it nothing is written.
    [string] $Destination,

    # Replaces the folder if it exists.
    [switch] $Force
)

$ErrorActionPreference = 'Stop'

function Show-Figure([string] $Text, [object[]] $Value) {
    # Figures look the same whatever the language of the machine is.
    Write-Information -MessageData ([string]::Format([cultureinfo]::InvariantCulture, $Text, $Value)) -InformationAction Continue
}

function Read-Row([string] $Name) {
    @(Get-Content -LiteralPath "$PSScriptRoot/data/$Name" | ConvertFrom-Json)
}

$articles = Read-Row articles.jsonl
$tickets = Read-Row tickets.train.jsonl
$unseen = Read-Row tickets.eval.jsonl

# For each ticket a page that answers it, and two of other classes.
$pairs = for ($i = 0; $i -lt $tickets.Count; $i++) {
    $ticket = $tickets[$i]
    $right = @($articles | Where-Object label -EQ $ticket.label)
    $wrong = @($articles | Where-Object label -NE $ticket.label)
    @{ text = $ticket.text; text_pair = $right[$i % $right.Count].text; label = 1 }
    @{ text = $ticket.text; text_pair = $wrong[(7 * $i) % $wrong.Count].text; label = 0 }
    @{ text = $ticket.text; text_pair = $wrong[(7 * $i + 4) % $wrong.Count].text; label = 0 }
}

# For each ticket to measure on every page. Rows with one text are one query, so that MRR@10 and nDCG@10 can be told.
$rankings = foreach ($ticket in $unseen) {
    foreach ($article in $articles) {
        @{ text = $ticket.text; text_pair = $article.text; label = [int] ($article.label -eq $ticket.label) }
    }
}

$train = @{ Data = $pairs; Epochs = $Epochs; BatchSize = 32; LearningRate = $LearningRate; WarmupRatio = 0.06; Seed = $Seed }
if ($MaxSteps -gt 0) {
    $train.MaxSteps = $MaxSteps
}

# One label makes a head of one number; pairs with labels from 0 to 1 make it a reranker, as the warnings would say.
$model = Import-LoKrModel -Path $ModelPath -Label relevance -Seed $Seed -WarningAction SilentlyContinue
try {
    $before = $model | Measure-LoKrModel -Data $rankings -BatchSize 64 -WarningAction SilentlyContinue
    Show-Figure 'Before training:  MRR@10 {0:N3}   nDCG@10 {1:N3}   {2} tickets, {3} pages each' $before.MrrAt10, $before.NdcgAt10, $unseen.Count, $articles.Count

    New-LoKrConfig -R $R -Alpha (2 * $R) -TargetModules all-linear |
        Add-LoKrAdapter -Model $model -Seed $Seed |
        Start-LoKrTraining @train -WarningAction SilentlyContinue
    $training = $model.LastTraining
    $after = $model | Measure-LoKrModel -Data $rankings -BatchSize 64
    Show-Figure 'After training:   MRR@10 {0:N3}   nDCG@10 {1:N3}   {2} pairs, {3} steps, {4:N1} s' `
        $after.MrrAt10, $after.NdcgAt10, $pairs.Count, $training.History.Count, $training.Elapsed.TotalSeconds

    foreach ($ticket in 'My password is not accepted any more.', 'We paid twice and want the money back.', 'The battery of my laptop is empty after ten minutes.') {
        $best = $articles.text | ForEach-Object { @{ text = $ticket; text_pair = $_ } } | Invoke-LoKrModel $model | Sort-Object -Property Score -Descending -Top 1
        Show-Figure '  {0,5:P0}  {1} -> {2}' $best.Score, $ticket, $best.TextPair
    }

    if ($Destination) {
        $model | Merge-LoKrAdapter | Export-LoKrModel -Destination $Destination -Force:$Force
        Show-Figure 'exported to {0}' $Destination
    }

    [pscustomobject]@{
        ModelPath               = $ModelPath
        PairCount               = $pairs.Count
        QueryCount              = $unseen.Count
        Steps                   = $training.History.Count
        TrainableParameterCount = $training.TrainableParameterCount
        MrrAt10Before           = $before.MrrAt10
        MrrAt10                 = $after.MrrAt10
        NdcgAt10Before          = $before.NdcgAt10
        NdcgAt10                = $after.NdcgAt10
        Destination             = $Destination
    }
}
finally {
    $model.Dispose()
}
