#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# GGUF files at the prompt: what is in them, merges into them, LoRA beside them.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:llama = [LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/llama")
    $script:base = [LoKr.Testing.TinyGguf]::Write("$TestDrive/llama.gguf")
    $model = Import-LoKrModel -Path $llama
    New-LoKrConfig -R 2 -Alpha 4 -TargetModules q_proj, v_proj, down_proj -InitWeights Random | Add-LoKrAdapter -Model $model -Seed 1
    $model | Export-LoKrAdapter -Destination "$TestDrive/lokr"
    $model | Export-LoKrAdapter -Destination "$TestDrive/exported.gguf" -Format Gguf
    $model.Dispose()
}

Describe 'Get-LoKrModule -Path' {
    It 'lists tensors with their types and modules' {
        $all = @(Get-LoKrModule -Path $base)
        $all.Count | Should -Be 20
        $down = $all | Where-Object Name -EQ 'blk.1.ffn_down.weight'
        $down.Type | Should -Be 'Q8_0'
        $down.Shape | Should -Be 16, 32
        $down.Modules | Should -Be 'model.layers.1.mlp.down_proj'
        $down.ParameterCount | Should -Be 512
        $down.ByteCount | Should -Be 544
        $down.IsSupported | Should -BeTrue
    }

    It 'selects by names of tensors, names of modules and types' {
        (Get-LoKrModule -Path $base -Name q_proj).Name | Should -Be 'blk.0.attn_q.weight', 'blk.1.attn_q.weight'
        (Get-LoKrModule -LiteralPath $base -Name '*.attn_q.weight').Count | Should -Be 2
        (Get-Item -LiteralPath $base | Get-LoKrModule -Type 'Q*').Name | Should -Be 'blk.0.ffn_down.weight', 'blk.1.ffn_down.weight'
    }

    It 'shows a table' {
        Get-Display (Get-LoKrModule -Path $base -Name *.0.mlp.down_proj) | Should -Match 'blk\.0\.ffn_down\.weight +Q8_0 +16\W32 +512 .*model\.layers\.0\.mlp\.down_proj'
    }

    It 'refuses another file' {
        Get-ErrorId { Get-LoKrModule -Path "$llama/config.json" } | Should -Be 'LoKr.GgufHeaderInvalid'
    }
}

Describe 'Merge-LoKrAdapter into a GGUF file' {
    It 'changes the adapted weights alone and reports what they kept' {
        $result = Merge-LoKrAdapter -Path $base -Adapter "$TestDrive/lokr" -Destination "$TestDrive/merged.gguf"
        $result.ModuleCount | Should -Be 6
        $result.Files | Should -Be 'merged.gguf'
        (Get-Item -LiteralPath "$TestDrive/merged.gguf").Length | Should -Be (Get-Item -LiteralPath $base).Length
        $result.Weights.Name | Sort-Object | Should -Be (0, 1 | ForEach-Object { "blk.$_.attn_q.weight", "blk.$_.attn_v.weight", "blk.$_.ffn_down.weight" })
        $result.Weights | ForEach-Object { $_.Kept | Should -BeGreaterThan 0.9 }
        Get-Display $result.Weights | Should -Match 'Kept +Error/Delta'
    }

    It 'gives the adapted weights another type' {
        $result = Merge-LoKrAdapter -Path $base -Adapter "$TestDrive/lokr" -Destination "$TestDrive/wide.gguf" -TensorType F32
        $result.Weights.Type | Sort-Object -Unique | Should -Be 'F32'
        (Get-LoKrModule -Path "$TestDrive/wide.gguf" -Name down_proj).Type | Should -Be 'F32', 'F32'
        (Get-LoKrModule -Path "$TestDrive/wide.gguf" -Name gate_proj).Type | Should -Be 'F16', 'F16'
    }

    It 'writes nothing with -WhatIf, and replaces only with -Force' {
        Merge-LoKrAdapter -Path $base -Adapter "$TestDrive/lokr" -Destination "$TestDrive/rehearsed.gguf" -WhatIf
        "$TestDrive/rehearsed.gguf" | Should -Not -Exist
        Get-ErrorId { Merge-LoKrAdapter -Path $base -Adapter "$TestDrive/lokr" -Destination "$TestDrive/merged.gguf" } | Should -Be 'LoKr.DestinationExists'
        (Merge-LoKrAdapter -Path $base -Adapter "$TestDrive/lokr" -Destination "$TestDrive/merged.gguf" -Force).ModuleCount | Should -Be 6
    }

    It 'names parameters that have no effect' {
        Merge-LoKrAdapter -Path $base -Adapter "$TestDrive/lokr" -Destination "$TestDrive/x.gguf" -MaxShardSize 1GB -WhatIf 3>&1 | Should -Match 'MaxShardSize has no effect'
        Merge-LoKrAdapter -Path $llama -Adapter "$TestDrive/lokr" -Destination "$TestDrive/x" -TensorType Q8_0 -WhatIf 3>&1 | Should -Match 'TensorType has no effect'
    }

    It 'comes back from a job and from CLIXML' {
        $result = Merge-LoKrAdapter -Path $base -Adapter "$TestDrive/lokr" -Destination "$TestDrive/again.gguf"
        $result | Export-Clixml -LiteralPath "$TestDrive/result.clixml"
        $copy = Import-Clixml -LiteralPath "$TestDrive/result.clixml"
        $copy.Weights.Kept | Should -Be $result.Weights.Kept
        Get-Display ($copy | Format-List) | Should -Match '6 rounded; the least kept: blk'
    }
}

Describe 'LoRA as GGUF' {
    It 'is written from a model and from a file alike' {
        $result = Convert-LoKrAdapter -Path "$TestDrive/lokr" -Destination "$TestDrive/converted.gguf" -Format Gguf -BasePath $base
        $result.ModuleCount | Should -Be 6
        $result.Energy | Should -Be 1
        (Get-LoKrModule -Path "$TestDrive/converted.gguf").Name | Should -Be (Get-LoKrModule -Path "$TestDrive/exported.gguf").Name
        (Get-LoKrModule -Path "$TestDrive/converted.gguf" -Name blk.0.attn_q.weight.lora_b).Shape[0] | Should -Be 16
    }

    It 'has the rank that is asked for' {
        Convert-LoKrAdapter -Path "$TestDrive/lokr" -Destination "$TestDrive/rank.gguf" -Format Gguf -BasePath $llama -LoraRank 1 | ForEach-Object LargestRank | Should -Be 1
        (Get-LoKrModule -Path "$TestDrive/rank.gguf" -Name *.lora_a).Shape | Should -Contain 1
    }

    It 'is refused as <Id> where <Case>' -ForEach @(
        @{ Case = 'the base model is missing'; Id = 'LoKr.ConversionUnsupported'; Script = { Convert-LoKrAdapter -Path "$TestDrive/lokr" -Destination "$TestDrive/x.gguf" -Format Gguf } }
        @{ Case = 'the name is another'; Id = 'LoKr.InvalidArgument'; Script = { Convert-LoKrAdapter -Path "$TestDrive/lokr" -Destination "$TestDrive/x" -Format Gguf -BasePath $base } }
        @{ Case = 'a rank is beside a layout'; Id = 'LoKr.InvalidArgument'; Script = { Convert-LoKrAdapter -Path "$TestDrive/lokr" -Destination "$TestDrive/x.safetensors" -Format Kohya -LoraRank 2 } }
        @{ Case = 'a file is in the way'; Id = 'LoKr.DestinationExists'; Script = { Convert-LoKrAdapter -Path "$TestDrive/lokr" -Destination "$TestDrive/exported.gguf" -Format Gguf -BasePath $base -WhatIf } }
    ) {
        Get-ErrorId $Script | Should -Be $Id
    }
}

Describe 'The formats of an adapter' {
    It 'are the layouts and Gguf' {
        [enum]::GetNames([LoKr.PowerShell.Binding.AdapterFormat]) | Should -Be ([enum]::GetNames([LoKr.Core.Layouts.AdapterLayout]) + 'Gguf')
        foreach ($name in [enum]::GetNames([LoKr.Core.Layouts.AdapterLayout])) {
            [int] [LoKr.PowerShell.Binding.AdapterFormat] $name | Should -Be ([int] [LoKr.Core.Layouts.AdapterLayout] $name)
        }
    }
}
