#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.5.0' }

# Adapters as files and as part of a model: described, checked, converted.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:model = Get-Model
    $null = New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, key | Add-LoKrAdapter -Model $model -Name helpdesk -Seed 1
    $null = $model | Export-LoKrAdapter -Destination "$TestDrive/peft" -Name helpdesk
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
        $null = Convert-LoKrAdapter -Path "$TestDrive/peft" -Destination "$TestDrive/kohya.safetensors" -Format Kohya
        (Get-LoKrAdapter -Path "$TestDrive/kohya.safetensors").Layout | Should -Be 'Kohya'
        $null = Convert-LoKrAdapter -Path "$TestDrive/kohya.safetensors" -Destination "$TestDrive/back" -Format Peft -Model $model
        $first = Get-Model | Import-LoKrAdapter -Path "$TestDrive/peft"
        $second = Get-Model | Import-LoKrAdapter -Path "$TestDrive/back"
        ($second | Measure-LoKrModel -Data $eval).Loss | Should -Be ($first | Measure-LoKrModel -Data $eval).Loss
    }

    It 'keeps what is there without -Force' {
        Get-ErrorId { Convert-LoKrAdapter -Path "$TestDrive/peft" -Destination "$TestDrive/kohya.safetensors" -Format Kohya -ErrorAction Stop } | Should -Be 'LoKr.DestinationExists'
    }

    It 'offers the layouts' {
        Get-Completion 'Convert-LoKrAdapter x y -Format D' | Should -Contain 'Diffusers'
    }
}

Describe 'A merge on disk' {
    It 'equals the merge in memory, and needs no model' {
        $merge = Merge-LoKrAdapter -Path $encoder -Adapter "$TestDrive/peft" -Destination "$TestDrive/merged"
        $merge.Adapters.Count | Should -Be 1
        Get-Display $merge | Should -Match ' 4 '
        $other = Get-Model | Import-LoKrAdapter -Path "$TestDrive/peft" | Merge-LoKrAdapter
        $read = Import-LoKrModel -Path "$TestDrive/merged" -Label $labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
        [math]::Abs(($read | Measure-LoKrModel -Data $eval).Loss - ($other | Measure-LoKrModel -Data $eval).Loss) | Should -BeLessThan 1e-3
    }

    It 'writes nothing with -WhatIf' {
        $null = Merge-LoKrAdapter -Path $encoder -Adapter "$TestDrive/peft" -Destination "$TestDrive/rehearsed" -WhatIf
        "$TestDrive/rehearsed" | Should -Not -Exist
    }
}
