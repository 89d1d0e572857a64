#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Fine-tunes a causal language model on prompts and completions with LoKr: perplexity before and after, and three completions.

.DESCRIPTION
    The loss, and the perplexity, are taken over the completion and the end of the text only. With -Destination the model is
    merged and exported.

    Lines for people go to the host; the output is one object with the figures.

.EXAMPLE
    ./examples/Train-LanguageModel.ps1 -ModelPath ./llama -Data ./train.jsonl -ValidationData ./eval.jsonl -Destination ./tuned
#>
[CmdletBinding()]
param(
    # Folder of a Llama, Mistral or Qwen model: config.json, model.safetensors and the tokenizer's files.
    [Parameter(Mandatory)]
    [string] $ModelPath,

    # JSONL, JSON, CSV or TSV with prompt and completion (or text).
    [Parameter(Mandatory)]
    [string] $Data,

    # The same, to measure on.
    [Parameter(Mandatory)]
    [string] $ValidationData,

    # Passes over the data.
    [int] $Epochs = 3,

    # Highest learning rate.
    [double] $LearningRate = 5e-3,

    # Rank of the Kronecker factors.
    [int] $R = 8,

    # The delta weight is scaled by Alpha / R.
    [double] $Alpha = 16,

    [int] $BatchSize = 16,

    # Longest sequence in tokens; longer ones are cut.
    [int] $MaxLength = 128,

    # Ends the run after so many steps; 0 for whole epochs.
    [int] $MaxSteps = 0,

    # Most tokens of a completion that is shown.
    [int] $MaxNewTokens = 32,

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

$settings = @{
    Data           = $Data
    ValidationData = $ValidationData
    Epochs         = $Epochs
    LearningRate   = $LearningRate
    BatchSize      = $BatchSize
    MaxLength      = $MaxLength
    WarmupRatio    = 0.06
    Seed           = $Seed
}
if ($MaxSteps -gt 0) {
    $settings.MaxSteps = $MaxSteps
}

$model = Import-LoKrModel -Path $ModelPath -Device $Device
try {
    $before = $model | Measure-LoKrModel -Data $ValidationData -MaxLength $MaxLength -BatchSize $BatchSize
    Show-Figure 'before   perplexity {0,8:N2} over {1:N0} tokens of {2:N0} rows' $before.Perplexity, $before.TokenCount, $before.RowCount

    New-LoKrConfig -R $R -Alpha $Alpha -TargetModules all-linear -TaskType CAUSAL_LM |
        Add-LoKrAdapter -Model $model -Seed $Seed |
        Start-LoKrTraining @settings
    $training = $model.LastTraining
    $count = $model.CountParameters()
    $seconds = Get-StepTime $training
    Show-Figure 'after    perplexity {0,8:N2}   {1:N0} of {2:N0} parameters trained   {3:N3} s a step' `
        $training.After.Perplexity, $training.TrainableParameterCount, $count.Total, $seconds

    # Prompts of the validation data, or the first words of its texts.
    $path = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($ValidationData)
    $rows = [LoKr.Core.Data.DataReader]::ReadFile($path)
    $prompts = @(foreach ($row in $rows) {
            if ($row.Fields.ContainsKey('prompt')) { $row.Fields['prompt'] } else { ($row.Fields['text'] -split ' ')[0..3] -join ' ' }
        })[0..([math]::Min(3, $rows.Count) - 1)]
    $completions = @($prompts | Invoke-LoKrModel -Model $model -MaxNewTokens $MaxNewTokens)
    foreach ($completion in $completions) {
        Show-Figure '  {0} ->{1}' ($completion.Prompt -replace '\s+', ' '), $completion.Completion
    }

    if ($Destination) {
        $model | Merge-LoKrAdapter | Export-LoKrModel -Destination $Destination -Force:$Force
        Show-Figure 'exported to {0}' $Destination
    }

    [pscustomobject]@{
        ModelPath               = $ModelPath
        ValidationRowCount      = $before.RowCount
        Steps                   = $training.History.Count
        PerplexityBefore        = $before.Perplexity
        Perplexity              = $training.After.Perplexity
        TrainableParameterCount = $training.TrainableParameterCount
        TotalParameterCount     = $count.Total
        SecondsPerStep          = $seconds
        Completions             = [string[]] @($completions | ForEach-Object { $_.Completion })
        Destination             = $Destination
    }
}
finally {
    $model.Dispose()
}
