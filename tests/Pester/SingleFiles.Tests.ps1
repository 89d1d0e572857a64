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
        } catch { $_ }
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
