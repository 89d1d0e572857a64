#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# A Stable Diffusion pipeline: adapted, trained on images, asked for images, stopped, exported, refused with a reason.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    function Add-Adapter {
        New-LoKrConfig -R 8 -Alpha 32 -TargetModules k_proj, q_proj, v_proj, out_proj, fc1, fc2 | Add-LoKrAdapter -Model $sd.TextEncoder -Seed 1
        New-LoKrConfig -R 8 -Alpha 32 -TargetModules proj_in, proj_out, to_k, to_q, to_v, to_out.0, ff.net.0.proj, ff.net.2 -UseEffectiveConv2d |
            Add-LoKrAdapter -Model $sd.UNet -Seed 2
    }

    function Clear-Adapter {
        $sd.TextEncoder | Remove-LoKrAdapter -Name default
        $sd.UNet | Remove-LoKrAdapter -Name default
    }

    function Read-Pixel([string] $Path) {
        [LoKr.Models.Diffusion.ImageFile]::Read($Path).to([TorchSharp.torch+ScalarType]::Int32)
    }

    # The pixels of the same image at every call, as long as the pipeline is the same.
    function Get-Image([string] $Name, [hashtable] $Option = @{}) {
        $image = Invoke-LoKrModel $sd 'a red rack' -Seed 1 -Steps 4 -Destination "$work/$Name" @Option
        Read-Pixel $image.Path
    }

    # The largest difference of two images in one channel of one pixel.
    function Get-Distance([object] $First, [object] $Second) {
        $First.sub($Second).abs().max().item[int]()
    }
}

Describe 'A Stable Diffusion pipeline' {
    BeforeEach {
        $script:work = (New-Item -ItemType Directory -Path "$TestDrive/$(New-Guid)").FullName
        $script:sd = Import-LoKrModel -Path ([LoKr.Testing.TinyPipeline]::Write("$work/sd", $false, $null))
        $script:photos = [LoKr.Testing.TinyImages]::Write("$work/photos", 4)
    }

    AfterEach {
        $sd.Dispose()
        Remove-Item -LiteralPath $work -Recurse -Force
    }

    It 'has models that take adapters' {
        Add-Adapter
        $sd.AdapterNames | Should -Be 'text_encoder/default', 'unet/default'
        $sd.TrainableParameterCount | Should -BeGreaterThan 0
        @($sd.TextEncoder | Get-LoKrModule -Adapted).Count | Should -Be 12
        @($sd.UNet | Get-LoKrModule -Name *.to_out.0 -Adapted).Count | Should -BeGreaterThan 0
        @($sd.UNet | Get-LoKrModule -Type Conv2d, GEGLU).Count | Should -BeGreaterThan 0
    }

    It 'takes the place of a model in the cmdlets for adapters' {
        $failure = Get-Failure { New-LoKrConfig | Add-LoKrAdapter -Model $sd }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.TargetModulesRequired,*'
        "$failure" | Should -Match 'text_encoder, unet'
        $failure.ErrorDetails.RecommendedAction | Should -Match '\$sd\.UNet, or \$sd\.TextEncoder'
        New-LoKrConfig -R 4 -TargetModules q_proj, to_q | Add-LoKrAdapter -Model $sd -Seed 1 | Should -Be $sd
        $sd.AdapterNames | Should -Be 'text_encoder/default', 'unet/default'
        @($sd | Get-LoKrAdapter).Count | Should -Be 2
        @($sd | Get-LoKrConfig -Name default).Count | Should -Be 2
        @($sd | Get-LoKrModule -Name text_encoder.*.q_proj -Adapted).Count | Should -BeGreaterThan 0
        @($sd | Get-LoKrModule -Name unet.*.to_q -Adapted).Count | Should -BeGreaterThan 0
        $sd | Set-LoKrAdapter -Name default -Scale 0.5 -Active | Disable-LoKrAdapter | Enable-LoKrAdapter | Merge-LoKrAdapter | Should -Be $sd
        foreach ($model in $sd.Models.Values) {
            $model.MergedAdapters | Should -Be 'default'
        }

        Get-ErrorId { $sd | Remove-LoKrAdapter -Name d* } | Should -Be 'LoKr.AdapterMerged'
        Get-ErrorId { $sd | Merge-LoKrAdapter -Name other } | Should -Be 'LoKr.AdapterNotFound'
        $sd | Undo-LoKrMerge | Remove-LoKrAdapter -Name d* | Should -Be $sd
        @($sd.AdapterNames).Count | Should -Be 0
    }

    It 'learns, scales, merges' {
        Add-Adapter
        $before = Get-Image before.png
        $sd | Start-LoKrTraining -Data $photos -Resolution 16 -MaxSteps 25 -BatchSize 4 -LearningRate 1e-2 -Seed 1 | Should -Be $sd
        $sd.LastTraining.History.Count | Should -Be 25
        $sd.LastTraining.StopReason | Should -Be 'Completed'
        $adapted = Get-Image adapted.png
        Get-Distance $before $adapted | Should -BeGreaterThan 0

        # Scaled away at call time, the adapters leave the first image; merged, they leave the last.
        Get-Distance $before (Get-Image scaled.png @{ AdapterScale = 0 }) | Should -Be 0
        Get-Distance $adapted (Get-Image again.png) | Should -Be 0
        $sd.TextEncoder | Merge-LoKrAdapter
        $sd.UNet | Merge-LoKrAdapter
        Get-Distance $adapted (Get-Image merged.png) | Should -BeLessOrEqual 1
    }

    It 'writes an image and a record of how it was made' {
        $options = @{ Seed = 7; Steps = 3; Guidance = 5; NegativePrompt = 'dark'; Width = 24; Height = 8; Scheduler = 'Euler'; Destination = "$work/rack.png" }
        $image = Invoke-LoKrModel $sd 'a red rack' @options
        $image.Path | Should -Be (Join-Path $work 'rack.png')
        $image.Prompt | Should -Be 'a red rack'
        foreach ($name in 'Seed', 'Steps', 'Guidance', 'NegativePrompt', 'Width', 'Height', 'Scheduler') {
            $image.$name | Should -Be $options[$name] -Because $name
        }

        $image.Elapsed | Should -BeGreaterThan ([timespan]::Zero)
        "$([LoKr.Models.Diffusion.ImageFile]::ReadSize($image.Path))" | Should -Be '(24, 8)'
    }

    It 'numbers several images, and makes each again from its seed' {
        $images = @('a red rack', 'a blue rack' | Invoke-LoKrModel $sd -Count 2 -BatchSize 2 -Seed 3 -Steps 2 -Destination "$work/rack.png")
        $images.Path | Split-Path -Leaf | Should -Be 'rack.png', 'rack-2.png', 'rack-3.png', 'rack-4.png'
        $images.Seed | Should -Be 3, 4, 3, 4
        $again = Invoke-LoKrModel $sd 'a red rack' -Seed 4 -Steps 2 -Destination "$work/again.png"
        Get-Distance (Read-Pixel $images[1].Path) (Read-Pixel $again.Path) | Should -BeLessOrEqual 1
    }

    It 'writes each prompt to a file of its own, from objects too' {
        $images = @('one', 'two', 'one' | Invoke-LoKrModel $sd -Steps 1 -Destination { "$work/$_.png" })
        $images.Path | Split-Path -Leaf | Should -Be 'one.png', 'two.png', 'one-2.png'
        $images = @([pscustomobject] @{ Prompt = 'a rack'; Destination = "$work/row.png" } | Invoke-LoKrModel $sd -Steps 1)
        $images.Path | Split-Path -Leaf | Should -Be 'row.png'
    }

    It 'says once that prompts are cut' {
        $long = 'x' * 100
        $null = $long, 'y' | Invoke-LoKrModel $sd -Steps 1 -Destination "$work/cut.png" -Force -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -BeLike 'The prompt has * tokens; the first 24 are used.'
    }

    It 'says in the reference case what is cut of captions and of the prompt' {
        $case = Copy-Case prompt-77 -Beside caption-cp1252
        $warnings = @(& "$case/run.ps1" -Sd "$fixtures/diffusers/tiny-sd" 3>&1 | Where-Object { $_ -is [System.Management.Automation.WarningRecord] })
        $warnings.Count | Should -Be 2
        $warnings[0] | Should -Match '1 .*caption.*77'
        $warnings[1] | Should -Match 'prompt has \d+ tokens; the first 77 are used'
    }

    It 'is exported with the published names of its text encoder in the reference case' {
        $case = Copy-Case te-names-on-export
        & "$case/run.ps1" -Sd "$fixtures/diffusers/tiny-sd"
        $expected = @{
            Kohya      = 'lora_te_text_model_encoder_layers_0_self_attn_q_proj.lokr_w1'
            OneTrainer = 'lora_te_text_model_encoder_layers_0_self_attn_q_proj.lokr_w1'
            Diffusers  = 'text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lokr_w1'
            Comfy      = 'text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.lokr_w1'
        }
        foreach ($format in $expected.Keys) {
            $reader = [LoKr.Core.Safetensors.SafetensorsReader]::Open("$case/out-$format.safetensors")
            @($reader.Entries.Keys) | Should -Contain $expected[$format]
            @($reader.Entries.Keys -notlike '*text_model*') | Should -HaveCount 0
            $reader.Dispose()
        }
    }

    It 'replaces files only with -Force, and not with -WhatIf' {
        Set-Content -LiteralPath "$work/rack.png" -Value 'old' -NoNewline
        Get-ErrorId { Invoke-LoKrModel $sd x -Steps 1 -Destination "$work/rack.png" } | Should -Be 'LoKr.DestinationExists'
        $null = Invoke-LoKrModel $sd x -Steps 1 -Destination "$work/rack.png" -WhatIf -Force
        Get-Content -LiteralPath "$work/rack.png" -Raw | Should -Be 'old'
        $null = Invoke-LoKrModel $sd x -Steps 1 -Destination "$work/rack.png" -Force
        "$([LoKr.Models.Diffusion.ImageFile]::ReadSize("$work/rack.png"))" | Should -Be '(16, 16)'
    }

    It 'refuses to make an image with <Case>, and writes nothing' -ForEach @(
        @{ Case = 'another type of file'; Option = @{ Destination = 'rack.jpg' }; Id = 'LoKr.InvalidArgument' }
        @{ Case = 'a missing folder'; Option = @{ Destination = 'none/rack.png' }; Id = 'LoKr.PathNotFound' }
        @{ Case = 'a width of 20'; Option = @{ Destination = 'rack.png'; Width = 20 }; Id = 'LoKr.ImageSizeInvalid' }
        @{ Case = 'no step'; Option = @{ Destination = 'rack.png'; Steps = 0 }; Id = 'LoKr.GenerationOptionInvalid' }
        @{ Case = '1001 steps'; Option = @{ Destination = 'rack.png'; Steps = 1001 }; Id = 'LoKr.GenerationOptionInvalid' }
    ) {
        Push-Location -LiteralPath $work
        try {
            Get-ErrorId { Invoke-LoKrModel $sd x @Option } | Should -Be $Id
            Get-ChildItem -LiteralPath $work -File | Should -BeNullOrEmpty
        }
        finally {
            Pop-Location
        }
    }

    It 'stops within a step' {
        $shell = [powershell]::Create([System.Management.Automation.RunspaceMode]::NewRunspace)
        $null = $shell.AddScript('param($manifest, $sd, $file) Import-Module -Name $manifest; Invoke-LoKrModel $sd x -Steps 900 -Destination $file')
        $null = $shell.AddArgument($manifest).AddArgument($sd).AddArgument("$work/rack.png").BeginInvoke()
        for ($i = 0; $i -lt 600 -and $shell.Streams.Progress.Count -eq 0; $i++) {
            Start-Sleep -Milliseconds 100
        }

        $shell.Streams.Progress.Count | Should -BeGreaterThan 0
        $watch = [System.Diagnostics.Stopwatch]::StartNew()
        $shell.Stop()
        $shell.InvocationStateInfo.State | Should -Be 'Stopped'
        $watch.Elapsed.TotalSeconds | Should -BeLessThan 10
        "$work/rack.png" | Should -Not -Exist
        $shell.Dispose()
    }

    It 'gets its adapters back from <Case>' -ForEach @(
        @{ Case = 'one file'; Leaf = 'rack.safetensors'; Option = @{ Format = 'Kohya' } }
        @{ Case = 'a folder for each model'; Leaf = 'rack'; Option = @{} }
    ) {
        Add-Adapter
        $sd | Start-LoKrTraining -Data $photos -Resolution 16 -MaxSteps 3 -LearningRate 1e-2 -Seed 1
        $trained = $sd.TrainableParameterCount
        $adapted = Get-Image adapted.png
        $place = "$work/$Leaf"
        $sd | Export-LoKrAdapter -Destination $place @Option | Should -Be $sd
        Get-ErrorId { $sd | Export-LoKrAdapter -Destination $place @Option } | Should -Be 'LoKr.DestinationExists'
        Clear-Adapter
        Get-Distance $adapted (Get-Image bare.png) | Should -BeGreaterThan 0

        Import-LoKrAdapter $sd -Path $place -Name other -WhatIf
        @($sd.AdapterNames).Count | Should -Be 0
        Import-LoKrAdapter $sd -Path $place -Name other -Trainable | Should -Be $sd
        $sd.AdapterNames | Should -Be 'text_encoder/other', 'unet/other'
        $sd.TrainableParameterCount | Should -Be $trained
        Get-Distance $adapted (Get-Image loaded.png) | Should -BeLessOrEqual 1
        Get-ErrorId { $sd | Import-LoKrAdapter -Path $place -Name other } | Should -Be 'LoKr.AdapterExists'
    }

    It 'has one model that takes its part of a file' {
        Add-Adapter
        $sd | Export-LoKrAdapter -Destination "$work/kohya.safetensors" -Format Kohya | Export-LoKrAdapter -Destination "$work/peft"
        "$work/peft/unet/adapter_model.safetensors" | Should -Exist
        Get-ErrorId { $sd.UNet | Import-LoKrAdapter -Path "$work/kohya.safetensors" -Name b } | Should -Be 'LoKr.AdapterModulesUnknown'
        $sd.UNet | Import-LoKrAdapter -Path "$work/kohya.safetensors" -Name b -Component Unet | Should -Not -BeNullOrEmpty
    }

    It 'computes latents once' {
        Add-Adapter
        $verbose = 1..2 | ForEach-Object { "$($sd | Start-LoKrTraining -Data $photos -Resolution 16 -MaxSteps 1 -Verbose 4>&1)" }
        $verbose[0] | Should -Match '4 computed, 0 read'
        $verbose[1] | Should -Match '0 computed, 4 read'
    }

    It 'rehearses a training without computing anything' {
        Add-Adapter
        $sd | Start-LoKrTraining -Data $photos -Resolution 16 -Epochs 2 -WhatIf | Should -Be $sd
        $sd.LastTraining | Should -BeNullOrEmpty
        @(Get-ChildItem -LiteralPath $photos -Force).Count | Should -Be 8
    }

    It 'makes images during training, and reports steps' {
        Add-Adapter
        $options = @{
            Data = $photos; ValidationData = $photos; Resolution = 16; AspectBucket = $true; MaxSteps = 4; MinSnrGamma = 5; CaptionDropout = 0.1; ReportStep = $true; Seed = 1
            SamplePrompt = 'a rack'; SampleEvery = 2; SampleSteps = 2; SampleDestination = "$work/samples"; LatentCache = "$work/cache"
        }
        $steps = @($sd | Start-LoKrTraining @options)
        $steps.Step | Should -Be 1, 2, 3, 4
        $steps[-1].EvaluationLoss | Should -Not -BeNullOrEmpty
        (Get-ChildItem -LiteralPath "$work/samples").Name | Sort-Object | Should -Be 'step-000002-1.png', 'step-000004-1.png'
        "$work/cache" | Should -Exist
        "$photos/.lokr-latents" | Should -Not -Exist
    }

    It 'refuses to train on <Case>' -ForEach @(
        @{ Case = 'a missing folder'; Data = 'none'; Option = @{}; Id = 'LoKr.PathNotFound' }
        @{ Case = 'a folder without images'; Data = 'sd'; Option = @{}; Id = 'LoKr.DataEmpty' }
        @{ Case = 'a resolution of 20'; Data = 'photos'; Option = @{ Resolution = 20 }; Id = 'LoKr.ImageSizeInvalid' }
        @{ Case = 'a dropout of 2'; Data = 'photos'; Option = @{ Resolution = 16; CaptionDropout = 2 }; Id = 'LoKr.TrainingOptionInvalid' }
        @{ Case = 'samples without a folder'; Data = 'photos'; Option = @{ Resolution = 16; SamplePrompt = 'x' }; Id = 'LoKr.InvalidArgument' }
        @{ Case = 'rows of text'; Data = @{ text = 'x' }; Option = @{ Resolution = 16 }; Id = 'LoKr.DataValueInvalid' }
        @{ Case = 'images without captions'; Data = 'bare'; Option = @{ Resolution = 16 }; Id = 'LoKr.CaptionMissing' }
        @{ Case = 'damaged images'; Data = 'damaged'; Option = @{ Resolution = 16 }; Id = 'LoKr.ImageNotReadable' }
    ) {
        Add-Adapter
        Remove-Item -LiteralPath "$([LoKr.Testing.TinyImages]::Write("$work/bare", 2))/01-green.txt"
        Set-Content -LiteralPath "$([LoKr.Testing.TinyImages]::Write("$work/damaged", 2))/01-green.png" -Value 'not an image'
        $from = $Data -is [string] ? "$work/$Data" : $Data
        Get-ErrorId { $sd | Start-LoKrTraining -Data $from @Option } | Should -Be $Id
    }

    It 'passes damaged images and missing captions where that is asked for' {
        Add-Adapter
        $damaged = [LoKr.Testing.TinyImages]::Write("$work/damaged", 3)
        Set-Content -LiteralPath "$damaged/01-green.png" -Value 'not an image'
        Remove-Item -LiteralPath "$damaged/02-blue.txt"
        $options = @{ Data = $damaged; Resolution = 16; MaxSteps = 1; UnreadableImage = 'Skip'; MissingCaption = 'Allow' }
        $sd | Start-LoKrTraining @options -WarningVariable warned -WarningAction SilentlyContinue
        $warned.Count | Should -Be 1
        "$warned" | Should -Match '01-green\.png'
        $sd.LastTraining.StopReason | Should -Be 'Completed'
    }

    It 'is exported once it is merged, and imported again' {
        $sd | Export-LoKrModel -Destination "$work/copy" -WhatIf | Should -BeNullOrEmpty
        Add-Adapter
        Get-ErrorId { $sd | Export-LoKrModel -Destination "$work/copy" } | Should -Be 'LoKr.ExportUnmerged'
        "$work/copy" | Should -Not -Exist
        $sd.TextEncoder | Merge-LoKrAdapter
        $sd.UNet | Merge-LoKrAdapter
        Export-LoKrModel $sd -Destination "$work/merged"
        $sd | Export-LoKrModel -Destination "$work/piped"
        foreach ($name in 'merged', 'piped') {
            $copy = Import-LoKrModel -Path "$work/$name"
            $copy.Name | Should -Be 'StableDiffusionPipeline'
            $copy.Dispose()
        }
    }

    It 'is plain figures after serialization' {
        $copy = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($sd))
        $copy.PSTypeNames[0] | Should -Be 'Deserialized.LoKr.Models.Diffusion.StableDiffusionPipeline'
        $copy.Name | Should -Be 'StableDiffusionPipeline'
        $copy.PSObject.Properties['Vae'] | Should -BeNullOrEmpty
        $copy.ParameterCount | Should -BeGreaterThan 0
    }
}

Describe 'A folder that is neither model nor pipeline' {
    It 'is named with what it lacks' {
        $folder = New-Item -ItemType Directory -Path "$TestDrive/empty"
        $failure = Get-Failure { Import-LoKrModel -Path $folder }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.ModelConfigNotFound,*'
        $failure.Exception.Message | Should -Match 'model_index\.json'
    }
}
