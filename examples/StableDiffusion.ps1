#Requires -Modules LoKr
<#
.SYNOPSIS
    Trains LoKr on the text encoder and UNet of Stable Diffusion with a folder of images, and generates an image before and after.

.DESCRIPTION
    The images are PNG, JPEG or WebP files with a caption in a .txt of the same name, or listed in metadata.jsonl with file_name
    and text. Their latents are computed once and cached beside them. Everything is written to -Destination: the two images,
    samples generated during training, and the adapter as one file that other programs read.

    Lines for people go to the host; the output is one object with the figures.

.EXAMPLE
    ./examples/StableDiffusion.ps1 -ModelPath ./stable-diffusion-v1-5 -Data ./photos -Prompt 'a photo of a red server rack' -Destination ./out
#>
[CmdletBinding()]
param(
    # Folder of a diffusers pipeline: text_encoder, unet, vae, tokenizer and scheduler.
    [Parameter(Mandatory)]
    [string] $ModelPath,

    # Folder of images with captions.
    [Parameter(Mandatory)]
    [string] $Data,

    # Prompt of the generated images.
    [Parameter(Mandatory)]
    [string] $Prompt,

    # Folder to write; it must not exist unless -Force is given.
    [Parameter(Mandatory)]
    [string] $Destination,

    # Side in pixels of the square that images are cropped to.
    [int] $Resolution = 512,

    # Optimizer steps.
    [int] $MaxSteps = 500,

    # Images in a batch.
    [int] $BatchSize = 1,

    # Highest learning rate.
    [double] $LearningRate = 1e-3,

    # Rank of the Kronecker factors.
    [int] $R = 8,

    # The delta weight is scaled by Alpha / R.
    [double] $Alpha = 32,

    # Denoising steps of the generated images.
    [int] $Steps = 30,

    # Training steps between samples.
    [int] $SampleEvery = 100,

    # auto, cpu, cuda or cuda:N.
    [string] $Device = 'auto',

    [int] $Seed = 1,

    # Writes into the folder although it exists.
    [switch] $Force
)

$ErrorActionPreference = 'Stop'

function Show-Figure([string] $Text, [object[]] $Value) {
    # Figures look the same whatever the language of the machine is.
    Write-Information -MessageData ([string]::Format([cultureinfo]::InvariantCulture, $Text, $Value)) -InformationAction Continue
}

$folder = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Destination)
if ([System.IO.Directory]::Exists($folder) -and -not $Force) {
    throw "'$folder' exists; choose another -Destination, or add -Force."
}

$null = [System.IO.Directory]::CreateDirectory($folder)

# Without the warning that there is no safety checker.
$sd = Import-LoKrModel -Path $ModelPath -Device $Device -WarningAction SilentlyContinue
try {
    # The layers of PEFT's own example.
    New-LoKrConfig -R $R -Alpha $Alpha -TargetModules k_proj, q_proj, v_proj, out_proj, fc1, fc2 |
        Add-LoKrAdapter -Model $sd.TextEncoder -Seed $Seed
    New-LoKrConfig -R $R -Alpha $Alpha -TargetModules proj_in, proj_out, to_k, to_q, to_v, to_out.0, ff.net.0.proj, ff.net.2 -UseEffectiveConv2d |
        Add-LoKrAdapter -Model $sd.UNet -Seed $Seed
    Show-Figure '{0}: {1:N0} of {2:N0} parameters are trained' $sd.Name, $sd.TrainableParameterCount, $sd.ParameterCount

    $generation = @{ Pipeline = $sd; InputObject = $Prompt; Seed = $Seed; Steps = $Steps; Width = $Resolution; Height = $Resolution; Force = $Force }
    $before = Invoke-LoKrModel @generation -Destination "$folder/before.png"

    $settings = @{
        Data              = $Data
        Resolution        = $Resolution
        MaxSteps          = $MaxSteps
        BatchSize         = $BatchSize
        LearningRate      = $LearningRate
        MinSnrGamma       = 5
        CaptionDropout    = 0.1
        Seed              = $Seed
        SamplePrompt      = $Prompt
        SampleEvery       = $SampleEvery
        SampleSteps       = $Steps
        SampleDestination = "$folder/samples"
    }
    $sd | Start-LoKrTraining @settings
    $training = $sd.LastTraining
    $losses = @($training.History | ForEach-Object { $_.Loss })
    $tenth = [math]::Max(1, [math]::Floor($losses.Count / 10))
    $first = [System.Linq.Enumerable]::Average([double[]] $losses[0..($tenth - 1)])
    $last = [System.Linq.Enumerable]::Average([double[]] $losses[(-$tenth)..-1])
    Show-Figure '{0:N0} steps in {1:N1} s: loss {2:N4} to {3:N4}, at most {4:N0} MiB of memory' `
        $losses.Count, $training.Elapsed.TotalSeconds, $first, $last, ($training.PeakMemoryBytes / 1MB)

    $after = Invoke-LoKrModel @generation -Destination "$folder/after.png"
    $sd | Export-LoKrAdapter -Destination "$folder/adapter.safetensors" -Format Kohya -Force:$Force
    Show-Figure '{0}, {1} and adapter.safetensors are in {2}' 'before.png', 'after.png', $folder

    [pscustomobject]@{
        ModelPath               = $ModelPath
        Steps                   = $losses.Count
        FirstLoss               = $first
        LastLoss                = $last
        TrainableParameterCount = $training.TrainableParameterCount
        TotalParameterCount     = $sd.ParameterCount
        PeakMemoryBytes         = $training.PeakMemoryBytes
        SecondsPerPicture       = $after.Elapsed.TotalSeconds
        Before                  = $before.Path
        After                   = $after.Path
        Adapter                 = "$folder/adapter.safetensors"
    }
}
finally {
    $sd.Dispose()
}
