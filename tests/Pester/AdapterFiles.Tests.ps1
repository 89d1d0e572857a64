#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Adapters as files and as part of a model: described, checked, converted.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:model = Get-Model
    New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, key -ModulesToSave @() | Add-LoKrAdapter -Model $model -Name helpdesk -Seed 1 -WarningAction SilentlyContinue
    $model | Export-LoKrAdapter -Destination "$TestDrive/peft" -Name helpdesk
}

AfterAll {
    $model.Dispose()
}

Describe 'Get-LoKrAdapter' {
    It 'describes files from the pipeline without loading them' {
        $info = Get-ChildItem -LiteralPath "$TestDrive/peft" -Filter *.safetensors | Get-LoKrAdapter
        $info.Layout | Should -Be 'Peft'
        $info.ModuleCount | Should -Be 4
        $info.Rank | Should -Be 2
        $info.ParameterCount | Should -Be $model.Adapters[0].ParameterCount
        Get-Display $info | Should -Match 'Peft +4 +2 +4 '
    }

    It 'describes the adapters of a model, by layer and in sum' {
        $status = $model | Get-LoKrAdapter
        $status.Name | Should -Be 'helpdesk'
        Get-Display $status | Should -Match 'helpdesk'
        @($model | Get-LoKrAdapter -ByLayer).Count | Should -Be 4
        Get-Display ($model | Get-LoKrAdapter -ByLayer) | Should -Match 'self\.query'
        Get-Display ($model | Get-LoKrAdapter -Summary) | Should -Match 'helpdesk'
    }

    It 'is completed' {
        Get-Completion '$model | Get-LoKrAdapter -Name ' | Should -Contain 'helpdesk'
        Get-Completion 'Get-LoKrAdapter -SourceFormat Ko' | Should -Contain 'Kohya'
    }
}

Describe 'Test-LoKrAdapter' {
    It 'finds a good file good' {
        (Test-LoKrAdapter -Path "$TestDrive/peft" -Model $model).IsValid | Should -BeTrue
        Test-LoKrAdapter -Path "$TestDrive/peft" -Values -Quiet | Should -BeTrue
    }

    It 'names what is wrong with a bad one, and goes on' {
        Copy-Item -LiteralPath "$TestDrive/peft" -Destination "$TestDrive/cut" -Recurse
        $file = "$TestDrive/cut/adapter_model.safetensors"
        $bytes = [System.IO.File]::ReadAllBytes($file)
        [System.IO.File]::WriteAllBytes($file, $bytes[0..($bytes.Length - 100)])
        $checks = @(Test-LoKrAdapter -Path "$TestDrive/cut", "$TestDrive/peft")
        $checks.IsValid | Should -Be $false, $true
        Get-Display $checks[0].Findings | Should -Match 'LoKr\.'
        Test-LoKrAdapter -Path "$TestDrive/cut" -Quiet | Should -BeFalse
    }
}

Describe 'Convert-LoKrAdapter' {
    It 'writes nothing with -WhatIf' {
        $null = Convert-LoKrAdapter -Path "$TestDrive/peft" -Destination "$TestDrive/rehearsed.safetensors" -Format Kohya -WhatIf
        "$TestDrive/rehearsed.safetensors" | Should -Not -Exist
    }

    It 'comes back from another layout bit by bit' {
        $left = "$TestDrive/.kohya.safetensors.$([guid]::NewGuid().ToString('N')).tmp"
        Set-Content -LiteralPath $left -Value unfinished
        (Get-Item -LiteralPath $left -Force).LastWriteTimeUtc = [datetime]::UtcNow.AddHours(-1)
        $null = Convert-LoKrAdapter -Path "$TestDrive/peft" -Destination "$TestDrive/kohya.safetensors" -Format Kohya
        $left | Should -Not -Exist
        (Get-LoKrAdapter -Path "$TestDrive/kohya.safetensors").Layout | Should -Be 'Kohya'
        $null = Convert-LoKrAdapter -Path "$TestDrive/kohya.safetensors" -Destination "$TestDrive/back" -Format Peft -Model $model
        $first = Get-Model | Import-LoKrAdapter -Path "$TestDrive/peft" -PassThru
        $second = Get-Model | Import-LoKrAdapter -Path "$TestDrive/back" -PassThru
        ($second | Measure-LoKrModel -Data $eval).Loss | Should -Be ($first | Measure-LoKrModel -Data $eval).Loss
    }

    It 'keeps what is there without -Force' {
        Get-ErrorId { Convert-LoKrAdapter -Path "$TestDrive/peft" -Destination "$TestDrive/kohya.safetensors" -Format Kohya -ErrorAction Stop } | Should -Be 'LoKr.DestinationExists'
    }

    It 'writes LoRA as one file where the reference case names one' {
        $case = Copy-Case lora-one-file -Beside sd15-unet-comfy-names
        & "$case/run.ps1" | Select-Object -Last 1 | Should -Be 'is a folder: False'
        $reader = [LoKr.Core.Safetensors.SafetensorsReader]::Open("$case/out.safetensors")
        $names = @($reader.Entries.Keys)
        $reader.Dispose()
        $names.Count | Should -Be 12
        $names | Should -Match '^lora_unet_\w+\.(lora_down\.weight|lora_up\.weight|alpha)$'
    }

    It 'offers the layouts' {
        Get-Completion 'Convert-LoKrAdapter x y -Format D' | Should -Contain 'Diffusers'
    }
}

Describe 'The adapter of a tiny model' {
    BeforeAll {
        $script:small = Get-TinyModel
        New-LoKrConfig -R 1 -Alpha 2 -TargetModules query, value -InitWeights Random -ModulesToSave @() | Add-LoKrAdapter -Model $small -Seed 1 -WarningAction SilentlyContinue
        $small | Export-LoKrAdapter -Destination "$TestDrive/small"
    }

    AfterAll {
        $small.Dispose()
    }

    It 'comes back through two layouts, byte by byte, onto a model' {
        $null = Convert-LoKrAdapter -Path "$TestDrive/small" -Destination "$TestDrive/small.kohya.safetensors" -Format Kohya |
            Convert-LoKrAdapter -Destination "$TestDrive/small.comfy.safetensors" -Format Comfy |
            Convert-LoKrAdapter -Destination "$TestDrive/small.back" -Format Peft
        foreach ($name in 'adapter_model.safetensors', 'adapter_config.json') {
            (Get-FileHash -LiteralPath "$TestDrive/small.back/$name").Hash | Should -Be (Get-FileHash -LiteralPath "$TestDrive/small/$name").Hash -Because $name
        }

        $before = Get-Loss $small
        foreach ($file in 'small.kohya.safetensors', 'small.comfy.safetensors', 'small.back') {
            $small | Remove-LoKrAdapter -Name * | Import-LoKrAdapter -Path "$TestDrive/$file"
            [math]::Abs((Get-Loss $small) - $before) | Should -BeLessThan 1e-6 -Because $file
        }
    }

    It 'is refused for a program without names for it, and written with -Force' {
        Get-ErrorId { Convert-LoKrAdapter -Path "$TestDrive/small" -Destination "$TestDrive/refused.safetensors" -For ComfyUI } | Should -Be 'LoKr.ConversionUnsupported'
        "$TestDrive/refused.safetensors" | Should -Not -Exist
        Convert-LoKrAdapter -Path "$TestDrive/small" -Destination "$TestDrive/forced.safetensors" -For ComfyUI -Force -WarningVariable warnings -WarningAction SilentlyContinue | Should -BeOfType LoKr.Core.Layouts.LoKrAdapterInfo
        $warnings | Should -Match '4 of 4'
        $check = Test-LoKrAdapter -Path "$TestDrive/forced.safetensors" -For ComfyUI
        $check.IsValid | Should -BeFalse
        $check.Findings.ErrorId | Should -Contain 'LoKr.ProgramModelUnknown'
        (Test-LoKrAdapter -Path "$TestDrive/small" -For Vllm).Findings.ErrorId | Should -Contain 'LoKr.ProgramFileRefused'
    }

    It 'becomes LoRA for vLLM with a rank that it accepts' {
        (Convert-LoKrAdapter -Path "$TestDrive/small" -Destination "$TestDrive/vllm" -LoraRank 3 -For Vllm).Rank | Should -Be 8
        $config = Get-Content -LiteralPath "$TestDrive/vllm/adapter_config.json" -Raw | ConvertFrom-Json
        $config.r | Should -Be 8
        $config.lora_alpha | Should -Be 8
        @($config.rank_pattern.PSObject.Properties) | Should -HaveCount 0
        $result = $small | Export-LoKrAdapter -Destination "$TestDrive/one.safetensors" -LoraRank 2 -PassThru
        $result | Should -BeOfType LoKr.Core.Model.LoKrModel
        "$TestDrive/one.safetensors" | Should -Exist
    }

    It 'becomes LoRA, from the model and from its file' {
        $small | Export-LoKrAdapter -Destination "$TestDrive/rehearsed" -LoraRank 2 -WhatIf
        "$TestDrive/rehearsed" | Should -Not -Exist
        $small | Export-LoKrAdapter -Destination "$TestDrive/lora" -LoraEnergy 1
        $result = Convert-LoKrAdapter -Path "$TestDrive/small" -Destination "$TestDrive/converted" -LoraEnergy 1 -Model $small
        $result.ModuleCount | Should -Be 4
        [math]::Round($result.Energy, 9) | Should -Be 1
        (Get-Item -LiteralPath "$TestDrive/converted/adapter_model.safetensors").Length | Should -Be (Get-Item -LiteralPath "$TestDrive/lora/adapter_model.safetensors").Length
        (Get-Content -LiteralPath "$TestDrive/lora/adapter_config.json" -Raw | ConvertFrom-Json).peft_type | Should -Be 'LORA'
        (Get-Item -LiteralPath "$TestDrive/small" | Convert-LoKrAdapter -Destination "$TestDrive/two" -LoraRank 2).LargestRank | Should -Be 2
        Get-ErrorId { $small | Export-LoKrAdapter -Destination "$TestDrive/lora" -LoraRank 2 } | Should -Be 'LoKr.DestinationExists'
        Get-ErrorId { $small | Export-LoKrAdapter -Destination "$TestDrive/new" -LoraRank 0 } | Should -Be 'LoKr.RankInvalid'
        Get-ErrorId { $small | Export-LoKrAdapter -Destination "$TestDrive/new" -LoraRank 100000 } | Should -Be 'LoKr.RankInvalid'
        Get-ErrorId { $small | Export-LoKrAdapter -Destination "$TestDrive/new" -LoraEnergy 1.5 } | Should -Be 'LoKr.EnergyInvalid'
        "$TestDrive/new" | Should -Not -Exist
    }

    It 'is described as a file and as a folder, and the next path goes on' {
        $small | Export-LoKrAdapter -Destination "$TestDrive/a.safetensors" -Format Kohya
        $found = @(Get-Item -LiteralPath "$TestDrive/a.safetensors", "$TestDrive/small" | Get-LoKrAdapter)
        $found.Layout | Should -Be 'Kohya', 'Peft'
        $found.ModuleCount | Should -Be 4, 4
        $found.Scale | Should -Be 2, 2
        # An array has a rank of its own.
        $found | ForEach-Object Rank | Should -Be 1, 1
        Get-ErrorId { Get-LoKrAdapter -Path "$TestDrive/absent" } | Should -Be 'LoKr.PathNotFound'
        @(Get-LoKrAdapter -Path $rows, "$TestDrive/small" -ErrorAction SilentlyContinue).Count | Should -Be 1
    }

    It 'is checked for its form, its values and a model' {
        $good = Test-LoKrAdapter -Path "$TestDrive/small" -Values -Model $small
        $good.IsValid | Should -BeTrue
        @($good.Findings).Count | Should -Be 0
        Set-Content -LiteralPath "$TestDrive/bad.safetensors" -Value 'no adapter at all'
        $bad = Test-LoKrAdapter -Path "$TestDrive/bad.safetensors"
        $bad.IsValid | Should -BeFalse
        @($bad.Findings).Count | Should -Be 1
        $bad.Findings[0].ErrorId | Should -BeLike 'LoKr.Safetensors*'
        Test-LoKrAdapter -Path "$TestDrive/small", "$TestDrive/bad.safetensors" -Quiet | Should -Be $true, $false
        $other = [LoKr.Core.Model.LoKrModel]::new([TorchSharp.torch+nn]::Linear(3, 4))
        $check = Test-LoKrAdapter -Path "$TestDrive/small" -Model $other
        $check.Findings.ErrorId | Should -Be 'LoKr.AdapterModulesUnknown'
        $other.Dispose()
    }

    It 'is not written where <Case>' -ForEach @(
        @{ Case = 'one file needs another name'; Script = { Convert-LoKrAdapter -Path "$TestDrive/small" -Destination "$TestDrive/x" -Format Kohya }; Id = 'LoKr.InvalidArgument' }
        @{ Case = 'a file is in the way'; Script = { Convert-LoKrAdapter -Path "$TestDrive/small" -Destination $rows -Format Peft }; Id = 'LoKr.DestinationExists' }
        @{ Case = 'there is no source'; Script = { Convert-LoKrAdapter -Path "$TestDrive/absent" -Destination "$TestDrive/x.safetensors" -Format Kohya }; Id = 'LoKr.PathNotFound' }
        @{ Case = 'a folder is in the way'; Script = { $small | Export-LoKrAdapter -Destination "$TestDrive/small" -Format DiffusersModel }; Id = 'LoKr.DestinationExists' }
        @{ Case = 'the layout is another one'; Script = { $small | Import-LoKrAdapter -Path "$TestDrive/small" -Name b -SourceFormat Kohya }; Id = 'LoKr.AdapterLayoutMixed' }
        @{ Case = 'the model is another part'; Script = { $small | Import-LoKrAdapter -Path "$TestDrive/small" -Name b -Component TextEncoder2 }; Id = 'LoKr.AdapterModulesUnknown' }
    ) {
        Get-ErrorId $Script | Should -Be $Id
        "$TestDrive/x" | Should -Not -Exist
        "$TestDrive/x.safetensors" | Should -Not -Exist
    }

    It 'is rehearsed with -WhatIf' {
        Convert-LoKrAdapter -Path "$TestDrive/small" -Destination "$TestDrive/x.safetensors" -Format Kohya -WhatIf | Should -BeNullOrEmpty
        $small | Export-LoKrAdapter -Destination "$TestDrive/x.safetensors" -Format Kohya -WhatIf | Should -Be $small
        "$TestDrive/x.safetensors" | Should -Not -Exist
    }

    It 'takes another alpha or scaling' {
        $small | Import-LoKrAdapter -Path "$TestDrive/small" -Name b -Alpha 6 | Import-LoKrAdapter -Path "$TestDrive/small" -Name c -Scaling None
        $small.GetAdapter('b').Layers.Scaling | Sort-Object -Unique | Should -Be 6
        $small.GetAdapter('c').Layers.Scaling | Sort-Object -Unique | Should -Be 1
    }
}
