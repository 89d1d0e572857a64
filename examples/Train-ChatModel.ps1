#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Fine-tunes a language model on conversations with LoKr: exact answers before and after, and a conversation of two turns.

.DESCRIPTION
    The chat template of the model writes the conversations, and the loss is on what the assistant says. ExactMatch is the share of the
    conversations whose answers the model gives to the letter. A model without a template gets a simple one, in a copy of its folder.
    With -Destination the model is merged and exported, template included.

    Lines for people go to the host; the output is one object with the figures.

.EXAMPLE
    ./examples/Train-ChatModel.ps1 -ModelPath ./SmolLM2-135M-Instruct -Destination ./helpdesk
#>
[CmdletBinding()]
param(
    # Folder of a language model: config.json, model.safetensors, the tokenizer's files and, if it was made for conversations, its chat template.
    [Parameter(Mandatory)]
    [string] $ModelPath,

    # JSONL, JSON or Parquet with messages (or conversations, or instruction and output).
    [string] $Data = "$PSScriptRoot/data/chats.train.jsonl",

    # The same, to measure on.
    [string] $ValidationData = "$PSScriptRoot/data/chats.eval.jsonl",

    # What the user says in the conversation that is shown, one text a turn.
    [string[]] $Say = ('The monitor on my desk stays black.', 'Thank you.'),

    # Passes over the data.
    [int] $Epochs = 3,

    # Highest learning rate.
    [double] $LearningRate = 5e-3,

    # Rank of the Kronecker factors.
    [int] $R = 8,

    # The delta weight is scaled by Alpha / R.
    [double] $Alpha = 16,

    [int] $BatchSize = 16,

    # Longest conversation in tokens; longer ones are cut, and the answers that this cuts are counted.
    [int] $MaxLength = 128,

    # Ends the run after so many steps; 0 for whole epochs.
    [int] $MaxSteps = 0,

    # Most tokens of an answer.
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

# Who speaks, and below it what is said; the end of text behind what the assistant says, so that the model learns where an answer ends. A line
# ends before an answer: many tokenizers make one token of a space and the word behind it, so that a prompt that ends in a space is none that
# occurred in the training.
$template = @'
{%- for message in messages -%}
{{ message.role + ':\n' + message.content + (eos_token if message.role == 'assistant' else '\n') }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'assistant:\n' }}{%- endif -%}
'@

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

$copy = $null
$folder = Convert-Path -LiteralPath $ModelPath
$configuration = Join-Path $folder 'tokenizer_config.json'
if (-not (Test-Path -LiteralPath (Join-Path $folder 'chat_template.jinja')) -and
    -not ((Test-Path -LiteralPath $configuration) -and (Get-Content -LiteralPath $configuration -Raw | ConvertFrom-Json -AsHashtable).Contains('chat_template'))) {
    $copy = Join-Path ([System.IO.Path]::GetTempPath()) "lokr-chat-$(New-Guid)"
    Copy-Item -LiteralPath $folder -Destination $copy -Recurse
    Set-Content -LiteralPath (Join-Path $copy 'chat_template.jinja') -Value $template -NoNewline
    Show-Figure 'the model has no chat template; it gets a simple one' @()
    $folder = $copy
}

$model = $null
try {
    $model = Import-LoKrModel -LiteralPath $folder -Device $Device
    $before = $model | Measure-LoKrModel -Data $ValidationData -MaxLength $MaxLength -BatchSize $BatchSize
    Show-Figure 'before   perplexity {0,8:N2}   {1:P0} of {2:N0} conversations answered to the letter' $before.Perplexity, $before.ExactMatch, $before.RowCount

    New-LoKrConfig -R $R -Alpha $Alpha -TargetModules all-linear -TaskType CAUSAL_LM |
        Add-LoKrAdapter -Model $model -Seed $Seed |
        Start-LoKrTraining @settings
    $training = $model.LastTraining
    Show-Figure 'after    perplexity {0,8:N2}   {1:P0}   {2:N0} of {3:N0} parameters trained' `
        $training.After.Perplexity, $training.After.ExactMatch, $training.TrainableParameterCount, $model.CountParameters().Total

    $conversation = $null
    foreach ($text in $Say) {
        $conversation = $conversation | Invoke-LoKrModel -Model $model -Message $text -MaxNewTokens $MaxNewTokens -Temperature 0
    }

    foreach ($message in $conversation.Messages) {
        Show-Figure '  {0,9}: {1}' $message.Role, $message.Content
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
        ExactMatchBefore        = $before.ExactMatch
        ExactMatch              = $training.After.ExactMatch
        TrainableParameterCount = $training.TrainableParameterCount
        Answers                 = [string[]] @($conversation.Messages | Where-Object Role -EQ 'assistant' | ForEach-Object { $_.Content })
        Destination             = $Destination
    }
}
finally {
    if ($model) {
        $model.Dispose()
    }

    if ($copy) {
        # Files that were read-only are so in the copy too.
        Remove-Item -LiteralPath $copy -Recurse -Force
    }
}
