#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Several adapters on one model: which are active, how strong, switched off, frozen, removed.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # What the layer answers to the same inputs.
    function Get-Answer {
        $noGradient = [TorchSharp.torch]::no_grad()
        try {
            $net.call($x)
        }
        finally {
            $noGradient.Dispose()
        }
    }

    function Get-Distance([object] $First, [object] $Second) {
        $First.sub($Second).abs().max().item[single]()
    }
}

Describe 'Two adapters on a layer' {
    BeforeEach {
        $script:net = [TorchSharp.torch+nn]::Linear(12, 8)
        $script:x = [TorchSharp.torch]::rand(3, 12)
        $config = New-LoKrConfig -R 2 -TargetModules all-linear -InitWeights Random
        $script:model = $config | Add-LoKrAdapter -Model $net -Name a -Seed 1 -PassThru
        $config | Add-LoKrAdapter -Model $model -Name b -Seed 2
    }

    AfterEach {
        $model.Dispose()
    }

    It 'add up where both are active, and scale' {
        $model | Disable-LoKrAdapter
        $none = Get-Answer
        $model | Enable-LoKrAdapter | Set-LoKrAdapter -Name a -Active
        $a = Get-Answer
        $model | Set-LoKrAdapter -Name b -Active
        $b = Get-Answer
        $model | Set-LoKrAdapter -Name a, b -Active
        $both = Get-Answer
        $model | Set-LoKrAdapter -Name a -Scale 0.5
        $half = Get-Answer

        $size = $both.abs().max().item[single]()
        Get-Distance $a.add($b).sub($none) $both | Should -BeLessThan (1e-5 * $size)
        $removed = $both.sub($half)
        Get-Distance $removed.add($removed) $a.sub($none) | Should -BeLessThan (1e-5 * $size)
        Get-Distance $a $none | Should -BeGreaterThan 1e-3
    }

    It 'are listed with their state' {
        $adapters = @($model | Get-LoKrAdapter)
        $adapters.Name | Should -Be 'a', 'b'
        $adapters.IsActive | Should -Be $true, $false
        (Get-LoKrAdapter -Name b -Model $model).Name | Should -Be 'b'
        (Get-LoKrAdapter -Model $model.Module | Where-Object IsActive).Name | Should -Be 'a'
        Get-ErrorId { $model | Get-LoKrAdapter -Name nope } | Should -Be 'LoKr.AdapterNotFound'
    }

    It 'are listed and removed by names, of which one that is not there is one error' {
        @(Get-LoKrAdapter -Model $model -Name b, nope, a -ErrorAction SilentlyContinue -ErrorVariable errors).Name | Should -Be 'a', 'b'
        $errors.FullyQualifiedErrorId | Should -Be 'LoKr.AdapterNotFound,LoKr.PowerShell.Commands.GetLoKrAdapterCommand'
        @(Get-LoKrConfig -Model $model -Name nope, b -ErrorAction SilentlyContinue).Count | Should -Be 1
        $passed = Remove-LoKrAdapter -Model $model -Name b, nope -PassThru -ErrorAction SilentlyContinue -ErrorVariable errors
        $errors.FullyQualifiedErrorId | Should -Be 'LoKr.AdapterNotFound,LoKr.PowerShell.Commands.RemoveLoKrAdapterCommand'
        $model.Adapters.Name | Should -Be 'a'
        $passed | Should -Be $model
        Remove-LoKrAdapter -Model $model -Name b, nope -PassThru -ErrorAction SilentlyContinue | Should -BeNullOrEmpty
    }

    It 'tell a merged one' {
        $model | Merge-LoKrAdapter -Name a
        $summary = $model | Get-LoKrAdapter -Summary
        $summary.MergedAdapters | Should -Be 'a'
        "$($summary.Enabled)" | Should -Be 'True'
        $layers = @($model | Get-LoKrAdapter -Name a -ByLayer)
        $layers.Count | Should -Be 1
        $layers.MergedAdapters | Should -Be 'a'
        $model | Undo-LoKrMerge | Remove-LoKrAdapter -Name *
        $model | Get-LoKrAdapter | Should -BeNullOrEmpty
        Get-ErrorId { $model | Get-LoKrAdapter -ByLayer } | Should -Be 'LoKr.AdapterNotFound'
    }

    It 'leave the base model when removed' {
        $model | Disable-LoKrAdapter
        $none = Get-Answer
        $model | Enable-LoKrAdapter | Remove-LoKrAdapter -Name *
        @($model.Adapters).Count | Should -Be 0
        Get-Distance $none (Get-Answer) | Should -Be 0
    }

    It 'can be frozen' {
        $model | Set-LoKrAdapter -Name a -Trainable:$false
        $model.GetAdapter('a').IsTrainable | Should -BeFalse
        Get-ErrorId { $model | Start-LoKrTraining -AdapterName a -Batch 1 -Loss { } } | Should -Be 'LoKr.AdapterNotTrainable'
    }

    It 'stay where <Case>' -ForEach @(
        @{ Case = 'nothing is set'; Script = { $model | Set-LoKrAdapter -Name a }; Id = 'LoKr.InvalidArgument' }
        @{ Case = 'an unknown one is activated'; Script = { $model | Set-LoKrAdapter -Name nope -Active }; Id = 'LoKr.AdapterNotFound' }
        @{ Case = 'a pattern matches none'; Script = { $model | Set-LoKrAdapter -Name nope* -Active }; Id = 'LoKr.AdapterNotFound' }
        @{ Case = 'a scale is not a number'; Script = { $model | Set-LoKrAdapter -Name a -Scale ([double]::NaN) }; Id = 'LoKr.InvalidArgument' }
        @{ Case = 'an unknown one is removed'; Script = { $model | Remove-LoKrAdapter -Name nope }; Id = 'LoKr.AdapterNotFound' }
        @{ Case = 'a merged one is removed'; Script = { $model | Merge-LoKrAdapter -Name a | Remove-LoKrAdapter -Name a }; Id = 'LoKr.AdapterMerged' }
        @{ Case = 'a merged one is scaled'; Script = { $model | Merge-LoKrAdapter -Name a | Set-LoKrAdapter -Name a -Scale 2 }; Id = 'LoKr.AdapterMerged' }
    ) {
        Get-ErrorId $Script | Should -Be $Id
        $model.Adapters.Name | Should -Be 'a', 'b'
    }

    It 'stay as they are with -WhatIf: <Case>' -ForEach @(
        @{ Case = 'Set-LoKrAdapter'; Script = { $model | Set-LoKrAdapter -Name b -Active -Scale 3 -WhatIf -PassThru } }
        @{ Case = 'Disable-LoKrAdapter'; Script = { $model | Disable-LoKrAdapter -WhatIf -PassThru } }
        @{ Case = 'Remove-LoKrAdapter'; Script = { $model | Remove-LoKrAdapter -Name a -WhatIf -PassThru } }
    ) {
        & $Script | Should -Be $model
        $model.Adapters.Name | Should -Be 'a', 'b'
        $model.ActiveAdapters | Should -Be 'a'
        $model.AdaptersEnabled | Should -BeTrue
        $model.GetAdapter('b').Scale | Should -Be 1
    }
}

Describe 'An adapter with DoRA' {
    It 'lies between the base and the trained weight, or follows LyCORIS by name' {
        $script:net = [TorchSharp.torch+nn]::Linear(12, 8)
        $script:x = [TorchSharp.torch]::rand(3, 12)
        $model = New-LoKrConfig -R 2 -TargetModules all-linear -InitWeights Random -WeightDecompose | Add-LoKrAdapter -Model $net -Seed 1 -PassThru
        ($model | Get-LoKrAdapter).DoraStrength | Should -Be 'Linear'
        $one = Get-Answer
        $model | Set-LoKrAdapter -Name default -Scale 0
        $zero = Get-Answer
        $model | Set-LoKrAdapter -Name default -Scale 0.5
        $half = Get-Answer
        $model | Set-LoKrAdapter -Name default -DoraStrength Lycoris
        $lycoris = Get-Answer
        $model | Disable-LoKrAdapter
        $size = $one.abs().max().item[single]()
        Get-Distance $zero (Get-Answer) | Should -BeLessThan (1e-5 * $size)
        Get-Distance $one.add($zero) $half.add($half) | Should -BeLessThan (1e-5 * $size)
        Get-Distance $lycoris $half | Should -BeGreaterThan (1e-3 * $size)
        ($model | Get-LoKrAdapter).DoraStrength | Should -Be 'Lycoris'
        Get-Display ($model | Get-LoKrAdapter | Format-List) | Should -Match 'DoraStrength +: Lycoris'
        New-LoKrConfig -R 2 -TargetModules all-linear | Add-LoKrAdapter -Model $model -Name plain
        Get-ErrorId { $model | Set-LoKrAdapter -Name plain -DoraStrength Lycoris } | Should -Be 'LoKr.InvalidArgument'
        $model.Dispose()
    }
}

Describe 'A module made in a script' {
    It 'stays the same model' {
        $net = [TorchSharp.torch+nn]::Sequential([TorchSharp.torch+nn]::Linear(10, 20), [TorchSharp.torch+nn]::Linear(20, 3))
        $first = Add-LoKrAdapter -Model $net -Config (New-LoKrConfig -R 2 -TargetModules all-linear) -PassThru
        $second = Add-LoKrAdapter -Model $net -Config (New-LoKrConfig -R 2 -TargetModules 0) -Name other -PassThru
        [object]::ReferenceEquals($first, $second) | Should -BeTrue
        $first.Adapters.Name | Should -Be 'default', 'other'
        $first.Adapters[0].Layers.Count | Should -Be 2
    }
}
