#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Trains a text classifier from any encoder folder and any file of labeled texts: the head alone, then LoKr on all linear layers.

.DESCRIPTION
    The labels are taken from the training data. Both runs start from the same weights and the same fresh head, so that their
    accuracies can be compared. With -Destination the classifier with LoKr is merged and exported.

    Lines for people go to the host; the output is one object with the figures.

.EXAMPLE
    ./examples/Train-TextClassifier.ps1 -ModelPath ./minilm -Data ./train.jsonl -ValidationData ./eval.jsonl -Destination ./classifier

.EXAMPLE
    dotnet run --project src/LoKr.Shell -- examples/Train-TextClassifier.ps1 -ModelPath examples/models/tiny-encoder -Data examples/data/tickets.train.jsonl -ValidationData examples/data/tickets.eval.jsonl
#>
[CmdletBinding()]
param(
    # Folder of a BERT, RoBERTa or DistilBERT model: config.json, model.safetensors and the tokenizer's files.
    [Parameter(Mandatory)]
    [string] $ModelPath,

    # JSONL, JSON, CSV or TSV with text and label.
    [Parameter(Mandatory)]
    [string] $Data,

    # The same, to measure on.
    [Parameter(Mandatory)]
    [string] $ValidationData,

    # Passes over the data.
    [int] $Epochs = 4,

    # Highest learning rate of LoKr; the new head beside it has ten times as much.
    [double] $LearningRate = 5e-3,

    # Highest learning rate of the head where it is trained alone.
    [double] $HeadLearningRate = 2e-2,

    # Rank of the Kronecker factors.
    [int] $R = 8,

    # The delta weight is scaled by Alpha / R.
    [double] $Alpha = 16,

    [int] $BatchSize = 32,

    # Longest text in tokens; longer ones are cut.
    [int] $MaxLength = 64,

    # Ends both runs after so many steps; 0 for whole epochs.
    [int] $MaxSteps = 0,

    # auto, cpu, cuda or cuda:N.
    [string] $Device = 'auto',

    [int] $Seed = 0,

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

function Get-StepTime($Training) {
    # The median: evaluations fall between some of the steps.
    $last = [timespan]::Zero
    $seconds = @(foreach ($step in $Training.History) {
            ($step.Elapsed - $last).TotalSeconds
            $last = $step.Elapsed
        })
    [array]::Sort($seconds)
    $seconds[[math]::Floor($seconds.Count / 2)]
}

$path = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Data)
$labels = [string[]] [System.Collections.Generic.SortedSet[string]]::new(
    [string[]] @([LoKr.Core.Data.DataReader]::ReadFile($path) | ForEach-Object { "$($_.Fields['label'])" }),
    [System.StringComparer]::Ordinal)

$settings = @{
    Data           = $Data
    ValidationData = $ValidationData
    Epochs         = $Epochs
    BatchSize      = $BatchSize
    MaxLength      = $MaxLength
    WarmupRatio    = 0.06
    Seed           = $Seed
}
if ($MaxSteps -gt 0) {
    $settings.MaxSteps = $MaxSteps
}

# An empty list of target modules trains the head alone: what an adapter has to beat.
$runs = [ordered]@{
    'head alone'    = @{ TargetModules = @(); LearningRate = $HeadLearningRate }
    'LoKr and head' = @{ TargetModules = @('all-linear'); LearningRate = $LearningRate }
}
$results = @{}
Show-Figure '{0} labels: {1}' $labels.Count, ($labels -join ', ')
foreach ($name in $runs.Keys) {
    $model = Import-LoKrModel -Path $ModelPath -Label $labels -Device $Device -Seed $Seed
    try {
        $before = $model | Measure-LoKrModel -Data $ValidationData -MaxLength $MaxLength -BatchSize $BatchSize
        New-LoKrConfig -R $R -Alpha $Alpha -TargetModules $runs[$name].TargetModules -TaskType SEQ_CLS |
            Add-LoKrAdapter -Model $model -Seed $Seed |
            Start-LoKrTraining @settings -LearningRate $runs[$name].LearningRate
        $training = $model.LastTraining
        $results[$name] = @{
            Before   = $before
            Training = $training
            Count    = $model.CountParameters()
            Seconds  = Get-StepTime $training
        }
        Show-Figure '{0,-14} accuracy {1:N4} -> {2:N4}   {3,7:N0} trainable parameters   {4:N3} s a step' `
            $name, $before.Accuracy, $training.After.Accuracy, $training.TrainableParameterCount, $results[$name].Seconds

        if ($Destination -and $name -eq 'LoKr and head') {
            $model | Merge-LoKrAdapter | Export-LoKrModel -Destination $Destination -Force:$Force
            Show-Figure 'exported to {0}' $Destination
        }
    }
    finally {
        $model.Dispose()
    }
}

$head = $results['head alone']
$lokr = $results['LoKr and head']
[pscustomobject]@{
    ModelPath                   = $ModelPath
    Labels                      = $labels
    ValidationRowCount          = $lokr.Before.RowCount
    Steps                       = $lokr.Training.History.Count
    AccuracyBefore              = $lokr.Before.Accuracy
    HeadAccuracy                = $head.Training.After.Accuracy
    HeadTrainableParameterCount = $head.Training.TrainableParameterCount
    HeadSecondsPerStep          = $head.Seconds
    Accuracy                    = $lokr.Training.After.Accuracy
    TrainableParameterCount     = $lokr.Training.TrainableParameterCount
    TotalParameterCount         = $lokr.Count.Total
    SecondsPerStep              = $lokr.Seconds
    Destination                 = $Destination
}
