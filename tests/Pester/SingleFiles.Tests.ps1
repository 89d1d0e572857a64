#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Adapters of programs, merged into single files and converted between fused and divided weights.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    function Save-Tensor([string] $Path, [hashtable] $Tensors, [hashtable] $Metadata = @{}) {
        $typed = [System.Collections.Generic.Dictionary[string, TorchSharp.torch+Tensor]]::new()
        foreach ($name in $Tensors.Keys) { $typed[$name] = $Tensors[$name] }
        $header = [System.Collections.Generic.Dictionary[string, string]]::new()
        foreach ($name in $Metadata.Keys) { $header[$name] = $Metadata[$name] }
        [LoKr.Core.Safetensors.SafetensorsWriter]::Write($Path, $typed, $header)
    }

    function Read-Tensor([string] $Path, [string] $Name) {
        $reader = [LoKr.Core.Safetensors.SafetensorsReader]::Open($Path)
        try { , $reader.Read($Name).data[float]().ToArray() } finally { $reader.Dispose() }
    }

    $null = Test-LoKrRuntime
    $script:flux = "$TestDrive/flux.safetensors"
    Save-Tensor -Path $flux -Metadata @{ modelspec = 'flux' } -Tensors @{
        'double_blocks.0.img_attn.qkv.weight' = [TorchSharp.torch]::zeros(12, 4)
        'double_blocks.0.img_attn.qkv.bias'   = [TorchSharp.torch]::zeros(12)
        'double_blocks.0.img_mlp.0.weight'    = [TorchSharp.torch]::zeros(16, 4)
    }
    $script:key = "$TestDrive/key.safetensors"
    Save-Tensor $key @{
        'transformer.transformer_blocks.0.attn.to_k.lokr_w1' = [TorchSharp.torch]::ones(2, 2)
        'transformer.transformer_blocks.0.attn.to_k.lokr_w2' = [TorchSharp.torch]::ones(2, 2)
    }
}

Describe 'A merge into a single file' {
    It 'changes the rows that the name means' {
        $result = Merge-LoKrAdapter -Path $flux -Adapter $key -Weight 2 -Destination "$TestDrive/merged.safetensors"
        $result | Should -BeOfType ([LoKr.Core.Model.LoKrMergeResult])
        $result.ModuleCount, $result.Files | Should -Be 1, 'merged.safetensors'
        $values = Read-Tensor $result.Destination 'double_blocks.0.img_attn.qkv.weight'
        $values[0..15] + $values[32..47] | Should -Be (@(0) * 32)
        $values[16..31] | Should -Be (@(2) * 16)
        (Read-Tensor $result.Destination 'double_blocks.0.img_mlp.0.weight') | Should -Be (@(0) * 64)
    }

    It 'plans with WhatIf, and refuses what exists' {
        Merge-LoKrAdapter -Path $flux -Adapter $key -Destination "$TestDrive/planned.safetensors" -WhatIf
        "$TestDrive/planned.safetensors" | Should -Not -Exist
        Merge-LoKrAdapter -Path $flux -Adapter $key -Destination "$TestDrive/once.safetensors"
        Get-ErrorId { Merge-LoKrAdapter -Path $flux -Adapter $key -Destination "$TestDrive/once.safetensors" } | Should -Be 'LoKr.DestinationExists'
        Get-ErrorId { Merge-LoKrAdapter -Path $flux -Adapter $key -Destination "$TestDrive/folder" } | Should -Be 'LoKr.InvalidArgument'
    }

    It 'takes the rank of whole factors from Rank, or from the header of the trainer' {
        foreach ($header in @{}, @{ ss_network_dim = '4' }) {
            Save-Tensor -Path "$TestDrive/whole.safetensors" -Metadata $header -Tensors @{
                'lora_unet_double_blocks_0_img_mlp_0.lokr_w1' = [TorchSharp.torch]::ones(4, 2)
                'lora_unet_double_blocks_0_img_mlp_0.lokr_w2' = [TorchSharp.torch]::ones(4, 2)
                'lora_unet_double_blocks_0_img_mlp_0.alpha'   = [TorchSharp.torch]::tensor([float] 8)
            }
            $rank = $header.Count ? @{} : @{ Rank = 4 }
            Merge-LoKrAdapter -Path $flux -Adapter "$TestDrive/whole.safetensors" -Scaling Peft @rank -Destination "$TestDrive/ranked.safetensors" -Force
            (Read-Tensor "$TestDrive/ranked.safetensors" 'double_blocks.0.img_mlp.0.weight')[0] | Should -Be 2
            Convert-LoKrAdapter "$TestDrive/whole.safetensors" "$TestDrive/converted.safetensors" -Format Comfy -Scaling Peft @rank -BasePath $flux -Force
            (Read-Tensor "$TestDrive/converted.safetensors" 'diffusion_model.double_blocks.0.img_mlp.0.lokr_w1')[0] | Should -Be 2
        }
    }

    It 'merges other kinds of adapters beside LoKr, and leaves out what it cannot merge where asked' {
        Save-Tensor "$TestDrive/mixed.safetensors" @{
            'diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1' = [TorchSharp.torch]::ones(3, 2)
            'diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2' = [TorchSharp.torch]::ones(4, 2)
            'diffusion_model.double_blocks.0.img_attn.qkv.diff_b'  = [TorchSharp.torch]::ones(12)
            'diffusion_model.double_blocks.0.img_mlp.0.oft_blocks' = [TorchSharp.torch]::ones(2, 2)
        }
        Get-ErrorId { Merge-LoKrAdapter -Path $flux -Adapter "$TestDrive/mixed.safetensors" -Destination "$TestDrive/mixed-out.safetensors" } | Should -Be 'LoKr.AdapterTypeNotSupported'
        $null = Merge-LoKrAdapter -Path $flux -Adapter "$TestDrive/mixed.safetensors" -Destination "$TestDrive/mixed-out.safetensors" -SkipUnsupported -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Match 'OFT'
        (Read-Tensor "$TestDrive/mixed-out.safetensors" 'double_blocks.0.img_attn.qkv.bias') | Should -Be (@(1) * 12)

        Get-ErrorId { Convert-LoKrAdapter "$TestDrive/mixed.safetensors" "$TestDrive/musubi.safetensors" -For Kohya } | Should -Be 'LoKr.AdapterTypeNotSupported'
        $null = Convert-LoKrAdapter "$TestDrive/mixed.safetensors" "$TestDrive/kohya.safetensors" -For Kohya -SkipUnsupported -Force -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Match 'left out'
    }

    It 'says which names a base has that no table knows' {
        Save-Tensor "$TestDrive/odd.safetensors" @{ 'trunk.0.mix.weight' = [TorchSharp.torch]::ones(4, 4) }
        $record = try { Merge-LoKrAdapter -Path "$TestDrive/odd.safetensors" -Adapter $key -Destination "$TestDrive/odd-out.safetensors" } catch { $_ }
        $record.FullyQualifiedErrorId | Should -Match 'LoKr.AdapterModulesUnknown'
        $record.ErrorDetails.RecommendedAction | Should -Match 'trunk.0.mix'
    }
}

Describe 'A file of LoRA' {
    BeforeAll {
        # With the modulation of every block it can only be Flux.1.
        $script:flux1 = "$TestDrive/flux1.safetensors"
        Save-Tensor $flux1 @{
            'double_blocks.0.img_attn.qkv.weight'   = [TorchSharp.torch]::zeros(12, 4)
            'double_blocks.0.img_mlp.0.weight'      = [TorchSharp.torch]::zeros(16, 4)
            'img_in.weight'                         = [TorchSharp.torch]::zeros(4, 4)
            'single_blocks.0.modulation.lin.weight' = [TorchSharp.torch]::zeros(12, 4)
        }
        $script:style = "$TestDrive/style.safetensors"
        Save-Tensor $style @{
            'lora_unet_img_in.lora_down.weight'                         = [TorchSharp.torch]::ones(1, 4)
            'lora_unet_img_in.lora_up.weight'                           = [TorchSharp.torch]::ones(4, 1)
            'lora_unet_img_in.alpha'                                    = [TorchSharp.torch]::tensor([float] 3)
            'lora_unet_single_blocks_0_modulation_lin.lora_down.weight' = [TorchSharp.torch]::ones(1, 4)
            'lora_unet_single_blocks_0_modulation_lin.lora_up.weight'   = [TorchSharp.torch]::ones(12, 1)
            'lora_unet_single_blocks_0_modulation_lin.alpha'            = [TorchSharp.torch]::tensor([float] 3)
            'lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight'   = [TorchSharp.torch]::ones(2, 4)
            'lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight'     = [TorchSharp.torch]::ones(12, 2)
            'lora_unet_double_blocks_0_img_attn_qkv.alpha'              = [TorchSharp.torch]::tensor([float] 6)
            'lora_unet_double_blocks_0_img_mlp_0.lora_down.weight'      = [TorchSharp.torch]::ones(2, 4)
            'lora_unet_double_blocks_0_img_mlp_0.lora_up.weight'        = [TorchSharp.torch]::ones(16, 2)
            'lora_unet_double_blocks_0_img_mlp_0.alpha'                 = [TorchSharp.torch]::tensor([float] 6)
        }
    }

    It 'becomes a PEFT folder with its own matrices, rank and alpha' {
        Convert-LoKrAdapter $style "$TestDrive/style" -For Peft -WhatIf
        "$TestDrive/style" | Should -Not -Exist
        $result = Convert-LoKrAdapter $style "$TestDrive/style" -For Peft
        $result | Should -BeOfType ([LoKr.Core.Conversion.LoraConversionResult])
        $result.ModuleCount, $result.Rank, $result.LargestError | Should -Be 6, 2, 0
        $config = Get-Content -LiteralPath "$TestDrive/style/adapter_config.json" -Raw | ConvertFrom-Json
        $config.peft_type, $config.r, $config.lora_alpha | Should -Be 'LORA', 2, 6
        $config.target_modules | Should -Contain 'transformer_blocks.0.attn.to_q'
        foreach ($adapter in $style, "$TestDrive/style") {
            $null = Merge-LoKrAdapter -Path $flux1 -Adapter $adapter -Destination "$TestDrive/style-out.safetensors" -Force
            (Read-Tensor "$TestDrive/style-out.safetensors" 'double_blocks.0.img_attn.qkv.weight') | Should -Be (@(6) * 48)
            (Read-Tensor "$TestDrive/style-out.safetensors" 'double_blocks.0.img_mlp.0.weight') | Should -Be (@(6) * 64)
        }
    }

    It 'is merged into a model in memory, and taken out again' {
        $model = Get-TinyModel
        try {
            $lora = "$TestDrive/tiny-lora"
            New-LoKrConfig -R 1 -TargetModules query -InitWeights Random -ModulesToSave @() | Add-LoKrAdapter $model -Seed 1 -WarningAction SilentlyContinue
            $model | Export-LoKrAdapter -Destination $lora -LoraEnergy 1
            $adapted = Get-Loss $model
            $model | Remove-LoKrAdapter -Name *
            $before = Get-Loss $model
            $failure = Get-Failure { $model | Import-LoKrAdapter $lora }
            $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.AdapterTypeNotSupported,*'
            $failure.ErrorDetails.RecommendedAction | Should -Match 'Merge-LoKrAdapter'
            $model | Merge-LoKrAdapter -Adapter $lora -WhatIf
            Get-Loss $model | Should -Be $before
            $model | Merge-LoKrAdapter -Adapter $lora
            $model.MergedAdapters | Should -Be 'tiny-lora'
            [math]::Abs((Get-Loss $model) - $adapted) | Should -BeLessThan 1e-5
            Get-ErrorId { $model | Merge-LoKrAdapter -Adapter $lora } | Should -Be 'LoKr.NothingToMerge'
            $model | Undo-LoKrMerge
            Get-Loss $model | Should -Be $before
            $model | Merge-LoKrAdapter -Adapter $lora -Weight 0
            Get-Loss $model | Should -Be $before
        }
        finally {
            $model.Dispose()
        }
    }

    It 'becomes one of q, k and v, and is joined again' {
        $null = Convert-LoKrAdapter $style "$TestDrive/split.safetensors" -For AiToolkit
        $null = Convert-LoKrAdapter "$TestDrive/split.safetensors" "$TestDrive/joined.safetensors" -For Kohya
        (Read-Tensor "$TestDrive/joined.safetensors" 'lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight') | Should -Be (@(1) * 24)
        (Read-Tensor "$TestDrive/joined.safetensors" 'lora_unet_double_blocks_0_img_attn_qkv.alpha') | Should -Be 6
    }
}

Describe 'A LoRA folder of PEFT' {
    BeforeAll {
        $script:lora = (New-Item -ItemType Directory "$TestDrive/lora").FullName
        Save-Tensor "$lora/adapter_model.safetensors" @{
            'base_model.model.double_blocks.0.img_mlp.0.lora_A.weight' = [TorchSharp.torch]::ones(2, 4)
            'base_model.model.double_blocks.0.img_mlp.0.lora_B.weight' = [TorchSharp.torch]::ones(16, 2)
        }
        Set-Content -LiteralPath "$lora/adapter_config.json" -Value '{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["img_mlp.0"]}'
    }

    It 'is described and checked' {
        $info = Get-LoKrAdapter -Path $lora
        $info.Layout, $info.OtherCount, $info.Rank, $info.Alpha, $info.Scale | Should -Be 'Peft', 1, 2, 6, 3
        (Test-LoKrAdapter -Path $lora -Values -BasePath $flux).IsValid | Should -BeTrue
        (Test-LoKrAdapter -Path $lora -For ComfyUI).Findings.ErrorId | Should -Contain 'LoKr.ProgramScaleDiffers'
        Get-ErrorId { Convert-LoKrAdapter $lora "$TestDrive/lokr" -Format Peft } | Should -Be 'LoKr.AdapterTypeNotSupported'
    }

    It 'is merged with the scale of its configuration, and so is its file for another program' {
        $info = Convert-LoKrAdapter $lora "$TestDrive/comfy.safetensors" -For ComfyUI -BasePath $flux
        $info.Layout, $info.OtherCount, $info.Scale | Should -Be 'Comfy', 1, 3
        foreach ($adapter in $lora, "$TestDrive/comfy.safetensors") {
            (Merge-LoKrAdapter -Path $flux -Adapter $adapter -Destination "$TestDrive/lora-out.safetensors" -Force).ModuleCount | Should -Be 1
            (Read-Tensor "$TestDrive/lora-out.safetensors" 'double_blocks.0.img_mlp.0.weight') | Should -Be (@(6) * 64)
        }
    }

    It 'is refused by name where two matrices are not all of it' {
        $record = try {
            Set-Content -LiteralPath "$lora/adapter_config.json" -Value '{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "all"}'
            Merge-LoKrAdapter -Path $flux -Adapter $lora -Destination "$TestDrive/no.safetensors"
        }
        catch { $_ }
        $record.FullyQualifiedErrorId | Should -Match 'LoKr.OptionNotSupported'
        "$record" | Should -Match "'bias'"
        "$TestDrive/no.safetensors" | Should -Not -Exist
    }
}

Describe 'A conversion to another division' {
    It 'cuts factors whose height the parts divide, and asks where they do not' {
        Save-Tensor "$TestDrive/fused.safetensors" @{
            'diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1' = [TorchSharp.torch]::ones(3, 2)
            'diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2' = [TorchSharp.torch]::ones(4, 2)
        }
        $info = Convert-LoKrAdapter "$TestDrive/fused.safetensors" "$TestDrive/split.safetensors" -Format Comfy -Division Split
        $info.ModuleCount | Should -Be 3

        Save-Tensor "$TestDrive/odd-height.safetensors" @{
            'diffusion_model.double_blocks.0.img_attn.qkv.lokr_w1' = [TorchSharp.torch]::randn(2, 2)
            'diffusion_model.double_blocks.0.img_attn.qkv.lokr_w2' = [TorchSharp.torch]::randn(6, 2)
        }
        $record = try { Convert-LoKrAdapter "$TestDrive/odd-height.safetensors" "$TestDrive/no.safetensors" -Format Comfy -Division Split } catch { $_ }
        $record.FullyQualifiedErrorId | Should -Match 'LoKr.DivisionInexact'
        $record.ErrorDetails.RecommendedAction | Should -Match '-Inexact'
        Convert-LoKrAdapter "$TestDrive/odd-height.safetensors" "$TestDrive/full.safetensors" -Format Comfy -Division Split -Inexact Full
        Merge-LoKrAdapter -Path $flux -Adapter "$TestDrive/odd-height.safetensors" -Destination "$TestDrive/odd-1.safetensors"
        Merge-LoKrAdapter -Path $flux -Adapter "$TestDrive/full.safetensors" -Destination "$TestDrive/odd-2.safetensors"
        $first = Read-Tensor "$TestDrive/odd-1.safetensors" 'double_blocks.0.img_attn.qkv.weight'
        $second = Read-Tensor "$TestDrive/odd-2.safetensors" 'double_blocks.0.img_attn.qkv.weight'
        for ($i = 0; $i -lt $first.Count; $i++) { [Math]::Abs($first[$i] - $second[$i]) | Should -BeLessThan 1e-5 }
    }
}
