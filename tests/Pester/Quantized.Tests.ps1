#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Merge-LoKrAdapter -Path into quantized weights.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # A file with one matrix of 8-bit floats and its scale, as ComfyUI writes them, and an adapter of LyCORIS on it.
    function Write-TensorFile([string]$Path, [object[]]$Tensors) {
        $offset = 0
        $members = foreach ($tensor in $Tensors) {
            '"{0}":{{"dtype":"{1}","shape":[{2}],"data_offsets":[{3},{4}]}}' -f $tensor.Name, $tensor.Type, ($tensor.Shape -join ','), $offset, ($offset + $tensor.Bytes.Count)
            $offset += $tensor.Bytes.Count
        }

        $header = [System.Text.Encoding]::UTF8.GetBytes('{' + ($members -join ',') + '}')
        [System.IO.File]::WriteAllBytes($Path, [byte[]]([System.BitConverter]::GetBytes([long]$header.Count) + $header + @($Tensors | ForEach-Object { $_.Bytes })))
    }

    function ConvertTo-FloatByte([float[]]$Values) {
        , [byte[]]@($Values | ForEach-Object { [System.BitConverter]::GetBytes($_) })
    }

    # 1, -1, 2, 0.5 and so on; the largest is 448 · 0.01.
    $script:codes = [byte[]](@(0x38, 0xb8, 0x40, 0x30) * 3 + @(0x7e, 0, 0x38, 0x38))
    $script:base = "$TestDrive/base.safetensors"
    Write-TensorFile $base @(
        @{ Name = 'layers.0.fc.weight_scale'; Type = 'F32'; Shape = @(); Bytes = ConvertTo-FloatByte 0.01 }
        @{ Name = 'layers.0.fc.weight'; Type = 'F8_E4M3'; Shape = 4, 4; Bytes = $codes }
        @{ Name = 'layers.0.fc.comfy_quant'; Type = 'U8'; Shape = , 27; Bytes = [System.Text.Encoding]::UTF8.GetBytes('{"format": "float8_e4m3fn"}') }
    )
    $script:adapter = "$TestDrive/adapter.safetensors"
    Write-TensorFile $adapter @(
        @{ Name = 'lycoris_layers_0_fc.alpha'; Type = 'F32'; Shape = @(); Bytes = ConvertTo-FloatByte 1 }
        @{ Name = 'lycoris_layers_0_fc.lokr_w1'; Type = 'F32'; Shape = 2, 2; Bytes = ConvertTo-FloatByte 1, 0, 0, 1 }
        @{ Name = 'lycoris_layers_0_fc.lokr_w2'; Type = 'F32'; Shape = 2, 2; Bytes = ConvertTo-FloatByte 0.02, 0, 0, 0.02 }
    )
}

Describe 'A merge into 8-bit floats' {
    It 'gives the nearest values of the scale that stays, and a report' {
        $result = Merge-LoKrAdapter -Path $base -Adapter $adapter -Destination "$TestDrive/kept.safetensors"
        $bytes = [System.IO.File]::ReadAllBytes("$TestDrive/kept.safetensors")

        # On the diagonal 0.01 becomes 0.03, 0.005 becomes 0.025 and so on; what is beside it stays.
        $start = [System.BitConverter]::ToInt64($bytes, 0) + 8 + 4
        $expected = $codes.Clone()
        $expected[0] = 0x44
        $expected[5] = 0x38
        $expected[10] = 0x48
        $expected[15] = 0x44
        $bytes[$start..($start + 15)] | Should -Be $expected
        $result.Weights.Name | Should -Be 'layers.0.fc.weight'
        $result.Weights.Type | Should -Be 'F8_E4M3'
        $result.Weights.Unchanged | Should -Be 0.75
        $result.Weights.Kept | Should -Be 1
        $result.Weights.AtLimit | Should -Be 0
        Get-Display $result.Weights | Should -Match 'F8_E4M3'
    }

    It 'fits the scale again' {
        $result = Merge-LoKrAdapter -Path $base -Adapter $adapter -Weight 1000 -Destination "$TestDrive/refit.safetensors" -ScaleMode Refit
        $result.Weights.AtLimit | Should -Be 0
        $bytes = [System.IO.File]::ReadAllBytes("$TestDrive/refit.safetensors")
        [System.BitConverter]::ToSingle($bytes, [System.BitConverter]::ToInt64($bytes, 0) + 8) | Should -BeGreaterThan 0.04
        (Merge-LoKrAdapter -Path $base -Adapter $adapter -Weight 1000 -Destination "$TestDrive/clipped.safetensors" -WarningAction SilentlyContinue).Weights.AtLimit | Should -Be 4
    }

    It 'dequantizes, without scales and marks' {
        $result = Merge-LoKrAdapter -Path $base -Adapter $adapter -Destination "$TestDrive/wide.safetensors" -DType bfloat16
        $result.Weights.Type | Should -Be 'BF16'
        $bytes = [System.IO.File]::ReadAllBytes("$TestDrive/wide.safetensors")
        $header = [System.Text.Encoding]::UTF8.GetString($bytes, 8, [System.BitConverter]::ToInt64($bytes, 0)) | ConvertFrom-Json -AsHashtable
        $header.Keys | Should -Be 'layers.0.fc.weight'
        $header['layers.0.fc.weight'].dtype | Should -Be 'BF16'
    }

    It 'says where a type has no effect, and what is refused' {
        Merge-LoKrAdapter -Path "$TestDrive/wide.safetensors" -Adapter $adapter -Destination "$TestDrive/again.safetensors" -DType float32 -WarningVariable warnings -WarningAction SilentlyContinue | Out-Null
        "$warnings" | Should -Match 'No weight of the base model is quantized'
        Write-TensorFile "$TestDrive/int8.safetensors" @(
            @{ Name = 'layers.0.fc.SCB'; Type = 'F32'; Shape = , 4; Bytes = ConvertTo-FloatByte 1, 1, 1, 1 }
            @{ Name = 'layers.0.fc.weight'; Type = 'I8'; Shape = 4, 4; Bytes = $codes }
        )
        $failure = { Merge-LoKrAdapter -Path "$TestDrive/int8.safetensors" -Adapter $adapter -Destination "$TestDrive/none.safetensors" } | Should -Throw -PassThru
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.QuantizationNotWritable,*'
        $failure.ErrorDetails.RecommendedAction | Should -Match '-DType BFloat16'
        (Merge-LoKrAdapter -Path "$TestDrive/int8.safetensors" -Adapter $adapter -Destination "$TestDrive/int8-wide.safetensors" -DType float16).Weights.Type | Should -Be 'F16'
    }
}
