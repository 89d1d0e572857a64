#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Trains a model that finds entities, from any encoder folder and any file of words with tags: the head alone, then LoKr on all linear layers.

.DESCRIPTION
    Without parameters it learns to find hosts, services, versions and people in messages of an operations team, with the small encoder and the data of this
    folder, which takes half a minute on two cores. The tags are taken from the training data. Both runs start from the same weights and the same fresh head.
    With -Destination the model with LoKr is merged and exported.

    Lines for people go to the host; the output is one object with the figures.

.EXAMPLE
    ./examples/Train-EntityTagger.ps1

.EXAMPLE
    ./examples/Train-EntityTagger.ps1 -ModelPath ./minilm -Data ./train.conll -ValidationData ./eval.conll -Destination ./tagger

.EXAMPLE
    dotnet run --project src/LoKr.Shell -- examples/Train-EntityTagger.ps1
#>
[CmdletBinding()]
param(
    # Folder of an encoder, or of a decoder that can classify tokens: config.json, model.safetensors and the tokenizer's files.
    [string] $ModelPath = "$PSScriptRoot/models/tiny-encoder",

    # Words with tags: a CoNLL file, or JSONL with tokens and ner_tags.
    [string] $Data = "$PSScriptRoot/data/incidents.train.conll",

    # The same, to measure on.
    [string] $ValidationData = "$PSScriptRoot/data/incidents.eval.conll",

    # Texts to find entities in at the end. Their words are what stands between spaces, as in the data.
    [string[]] $Text = @('haproxy on web7 does not answer .', 'Ms Keller upgraded postgresql to 16.3 on node four .'),

    # Passes over the data.
    [int] $Epochs = 12,

    # Highest learning rate of LoKr; the new head beside it has ten times as much.
    [double] $LearningRate = 5e-3,

    # Highest learning rate of the head where it is trained alone.
    [double] $HeadLearningRate = 2e-2,

    # Rank of the Kronecker factors.
    [int] $R = 8,

    # The delta weight is scaled by Alpha / R.
    [double] $Alpha = 16,

    [int] $BatchSize = 16,

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

# O first, then both tags of each type.
$path = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Data)
$found = [System.Collections.Generic.HashSet[string]]::new([string[]] @([LoKr.Core.Data.DataReader]::ReadFile($path) | ForEach-Object { [LoKr.Core.Data.RowFields]::LabelNames($_) }))
$types = [System.Collections.Generic.SortedSet[string]]::new([string[]] @($found | Where-Object { $_ -ne 'O' } | ForEach-Object { $_ -replace '^[BI]-' }), [System.StringComparer]::Ordinal)
$tags = @('O') + @($types | ForEach-Object { "B-$_", "I-$_" })
Show-Figure '{0} types of entities: {1}' $types.Count, ($types -join ', ')

$settings = @{
    Data           = $Data
    ValidationData = $ValidationData
    Epochs         = $Epochs
    BatchSize      = $BatchSize
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
foreach ($name in $runs.Keys) {
    $model = Import-LoKrModel -Path $ModelPath -Task TokenClassification -Label $tags -Device $Device -Seed $Seed -WarningAction SilentlyContinue
    try {
        New-LoKrConfig -R $R -Alpha $Alpha -TargetModules $runs[$name].TargetModules -TaskType TOKEN_CLS |
            Add-LoKrAdapter -Model $model -Seed $Seed |
            Start-LoKrTraining @settings -LearningRate $runs[$name].LearningRate
        $training = $model.LastTraining
        $results[$name] = $model | Measure-LoKrModel -Data $ValidationData -BatchSize $BatchSize
        Show-Figure '{0,-14} F1 of entities {1:N4}   precision {2:N4}   recall {3:N4}   {4,7:N0} trainable parameters   {5:N0} s' `
            $name, $results[$name].EntityF1, $results[$name].EntityPrecision, $results[$name].EntityRecall, $training.TrainableParameterCount, $training.Elapsed.TotalSeconds
        Show-Figure '{0,-14}       strict {1:N4}   precision {2:N4}   recall {3:N4}' '', $results[$name].StrictEntityF1, $results[$name].StrictEntityPrecision, $results[$name].StrictEntityRecall
        if ($name -eq 'LoKr and head') {
            foreach ($type in $model | Measure-LoKrModel -Data $ValidationData -BatchSize $BatchSize -ByLabel) {
                Show-Figure '  {0,-10} {1,4} entities   F1 {2:N4}' $type.Label, $type.RowCount, $type.F1
            }

            foreach ($entity in $Text | ForEach-Object { @{ Tokens = $_ -split ' ' } } | Invoke-LoKrModel -Model $model) {
                Show-Figure '  {0} {1,-10} {2} ({3:N2})' $entity.Index, $entity.Type, $entity.Text, $entity.Score
            }

            $steps = $training.History.Count
            $count = $training.TrainableParameterCount
            if ($Destination) {
                $model | Merge-LoKrAdapter | Export-LoKrModel -Destination $Destination -Force:$Force
                Show-Figure 'exported to {0}' $Destination
            }
        }
    }
    finally {
        $model.Dispose()
    }
}

[pscustomobject]@{
    ModelPath               = $ModelPath
    Types                   = @($types)
    ValidationRowCount      = $results['LoKr and head'].RowCount
    Steps                   = $steps
    HeadEntityF1            = $results['head alone'].EntityF1
    EntityPrecision         = $results['LoKr and head'].EntityPrecision
    EntityRecall            = $results['LoKr and head'].EntityRecall
    EntityF1                = $results['LoKr and head'].EntityF1
    StrictEntityPrecision   = $results['LoKr and head'].StrictEntityPrecision
    StrictEntityRecall      = $results['LoKr and head'].StrictEntityRecall
    StrictEntityF1          = $results['LoKr and head'].StrictEntityF1
    TrainableParameterCount = $count
    Destination             = $Destination
}
