#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Teaches a small encoder to sort support tickets: import, LoKr, train, merge, export, and the export answers the same.

.DESCRIPTION
    Everything it needs is in this folder: a small encoder (examples/models/tiny-encoder) and 720 tickets (examples/data).
    Runs in pwsh after `Import-Module LoKr`, or on a machine with only the .NET SDK:
    dotnet run --project src/LoKr.Shell -- examples/Quickstart.ps1

.EXAMPLE
    ./examples/Quickstart.ps1
#>
[CmdletBinding()]
param(
    # Passes over the 600 training tickets.
    [int] $Epochs = 5,

    [double] $LearningRate = 5e-3,

    # Rank of the Kronecker factors.
    [int] $R = 8
)

$ErrorActionPreference = 'Stop'

$labels = 'access', 'billing', 'email', 'hardware', 'network', 'software'
$data = "$PSScriptRoot/data"
$new = @(
    'The projector in the lecture hall has a burnt-out lamp.'
    'We paid the annual fee and still got a reminder.'
    'From home I cannot reach the company network.'
)
$folder = [System.IO.Path]::Combine([System.IO.Path]::GetTempPath(), "lokr-quickstart-$([guid]::NewGuid())")

# Numbers look the same whatever the language of the machine is.
function Format-Figure([string] $Text, [object[]] $Value) {
    [string]::Format([cultureinfo]::InvariantCulture, $Text, $Value)
}

try {
    # 1. A folder as Hugging Face models have it. It has no classification head, which is what the warning would say; it gets one for six labels.
    $model = Import-LoKrModel -Path "$PSScriptRoot/models/tiny-encoder" -Label $labels -Seed 1 -WarningAction SilentlyContinue
    $before = $model | Measure-LoKrModel -Data "$data/tickets.eval.jsonl"
    Format-Figure 'Before training:   {0:P1} of {1} held-out tickets are right' $before.Accuracy, $before.RowCount

    # 2. An adapter on every linear layer, and the new head, are trained; the encoder's own weights stay as they are.
    New-LoKrConfig -R $R -Alpha (2 * $R) -TargetModules all-linear |
        Add-LoKrAdapter -Model $model -Seed 1 |
        Start-LoKrTraining -Data "$data/tickets.train.jsonl" -ValidationData "$data/tickets.eval.jsonl" -Epochs $Epochs -BatchSize 16 -LearningRate $LearningRate -WarmupRatio 0.06 -Seed 1
    Format-Figure 'Parameters:        {0}' $model.CountParameters()

    $training = $model.LastTraining
    foreach ($step in $training.History | Where-Object { $null -ne $_.EvaluationLoss }) {
        Format-Figure '  epoch {0,4:N1}       loss {1:N3}   accuracy {2:P1}' $step.Epoch, $step.EvaluationLoss, $step.Accuracy
    }

    $after = $model | Measure-LoKrModel -Data "$data/tickets.eval.jsonl"
    Format-Figure 'After training:    {0:P1} of {1} held-out tickets are right, {2:N1} s for {3} steps' $after.Accuracy, $after.RowCount, $training.Elapsed.TotalSeconds, $training.History.Count

    # 3. New tickets.
    $answers = @($new | Invoke-LoKrModel -Model $model)
    foreach ($answer in $answers) {
        Format-Figure '  {0,-9} {1,5:P0}    {2}' $answer.Label, $answer.Score, $answer.Text
    }

    # 4. The adapter becomes part of the weights, and the model a folder that transformers loads too.
    $model | Merge-LoKrAdapter | Export-LoKrModel -Destination "$folder/merged"
    $files = [System.IO.Directory]::GetFiles("$folder/merged") | ForEach-Object { [System.IO.Path]::GetFileName($_) }
    "Exported:          $($files -join ', ')"

    # 5. The export is a model like any other, and it answers the same.
    $again = Import-LoKrModel -Path "$folder/merged"
    $same = @($new | Invoke-LoKrModel -Model $again)
    for ($i = 0; $i -lt $new.Count; $i++) {
        if ($same[$i].Label -ne $answers[$i].Label -or [math]::Abs($same[$i].Score - $answers[$i].Score) -gt 1e-4) {
            throw "The exported model answers '$($same[$i].Label)' ($($same[$i].Score)) where the trained one answered '$($answers[$i].Label)' ($($answers[$i].Score))."
        }
    }

    'Re-imported:       the merged model gives the same answers'
}
finally {
    if ($null -ne $again) {
        $again.Dispose()
    }

    if ($null -ne $model) {
        $model.Dispose()
    }

    if ([System.IO.Directory]::Exists($folder)) {
        [System.IO.Directory]::Delete($folder, $true)
    }
}
