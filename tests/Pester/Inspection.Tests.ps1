#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What an adapter would cost, what its factors hold, and what differs between two.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:model = Get-TinyModel
}

AfterAll {
    $model.Dispose()
}

Describe 'Measure-LoKrConfig' {
    It 'takes configurations from the pipeline, or model and configuration in any order' {
        $config = New-LoKrConfig -R 2 -TargetModules query, value
        $expected = ($config | Measure-LoKrConfig $model).ParameterCount
        (Measure-LoKrConfig $config $model).ParameterCount | Should -Be $expected
        ($model | Measure-LoKrConfig $config).ParameterCount | Should -Be $expected
        (Measure-LoKrConfig -Model $model -Config $config).ParameterCount | Should -Be $expected
        $model.Adapters.Count | Should -Be 0

        $adapted = Get-AdaptedTinyModel
        $adapted.Adapters[0].ParameterCount | Should -Be $expected
        $adapted.Dispose()
    }

    It 'numbers configurations that are measured side by side' {
        $costs = 1, 2 | ForEach-Object { New-LoKrConfig -R $_ -TargetModules query } | Measure-LoKrConfig $model
        $costs.Configuration | Should -Be 1, 2
        $costs.R | Should -Be 1, 2
        $costs[1].ParameterCount | Should -BeGreaterThan $costs[0].ParameterCount
        $costs[0].TotalBytes | Should -Be ($costs[0].ParameterCount * 20)
    }

    It 'reads a folder without weights' {
        Copy-Item -LiteralPath $tiny -Destination "$TestDrive/no[weights]" -Recurse
        Remove-Item -LiteralPath "$TestDrive/no[weights]/model.safetensors"
        $config = New-LoKrConfig -R 2 -TargetModules query, value -ModulesToSave @()
        $cost = $config | Measure-LoKrConfig "$TestDrive/no[weights]"
        $cost.ParameterCount | Should -Be ($config | Measure-LoKrConfig $model).ParameterCount
        (Get-Item -LiteralPath "$TestDrive/no[weights]" | Measure-LoKrConfig $config).LayerCount | Should -Be $cost.LayerCount
    }

    It 'lists modules with their factors' {
        $modules = New-LoKrConfig -R 2 -TargetModules query | Measure-LoKrConfig $model -ByModule
        ($modules | Where-Object Role -EQ Layer).FactorShapes | Should -Match '^w1 \d+×\d+, w2'
        ($modules | Where-Object Role -EQ Saved).Name | Should -Be 'classifier'
    }

    It 'goes on after a configuration that does not fit' {
        $configs = (New-LoKrConfig -TargetModules nothing), (New-LoKrConfig -TargetModules query)
        $costs = $configs | Measure-LoKrConfig $model -ErrorVariable failures -ErrorAction SilentlyContinue
        $costs.Configuration | Should -Be 2
        $failures.Count | Should -Be 1
        $failures[0].FullyQualifiedErrorId | Should -BeLike 'LoKr.TargetModuleNotFound,*'
        Get-ErrorId { New-LoKrConfig -TargetModules query | Measure-LoKrConfig "$TestDrive/none" } | Should -Be 'LoKr.PathNotFound'
    }
}

Describe 'Get-LoKrModule' {
    It 'lists what can take an adapter, by type and pattern' {
        $all = $model | Get-LoKrModule -Adaptable
        $all.ModuleType | Sort-Object -Unique | Should -Be 'Embedding', 'Linear'
        ($model | Get-LoKrModule -Adaptable -Type Linear).Count | Should -BeLessThan $all.Count
        ($model | Get-LoKrModule -Pattern '.*\.(query|value)').Name | Should -Be ($model | Get-LoKrModule *.query, *.value).Name
        $model | Get-LoKrModule self | Should -Not -BeNullOrEmpty
        $model | Get-LoKrModule self -Adaptable | Should -BeNullOrEmpty
    }

    It 'takes an ending for a name' {
        ($model | Get-LoKrModule query).Name | Should -Be ($model | Get-LoKrModule *.query).Name
        ($model | Get-LoKrModule self.query).Name | Should -Be ($model | Get-LoKrModule query).Name
        $model | Get-LoKrModule uery | Should -BeNullOrEmpty
    }
}

Describe 'Get-LoKrAdapter -Values' {
    BeforeAll {
        $script:adapted = Get-AdaptedTinyModel
        New-LoKrConfig -R 2 -TargetModules query, key -InitWeights Random | Add-LoKrAdapter $adapted -Name random -Seed 3
        Export-LoKrAdapter -Model $adapted -Name random -Destination "$TestDrive/random"
    }

    AfterAll {
        $adapted.Dispose()
    }

    It 'measures the layers of a model, sortable, relative to the base weight' {
        $values = $adapted | Get-LoKrAdapter -ByLayer -Values -Name random
        $values.Count | Should -Be $adapted.Adapters[1].Layers.Count
        $sorted = $values | Sort-Object RelativeNorm -Descending
        $sorted[0].RelativeNorm | Should -BeGreaterOrEqual $sorted[-1].RelativeNorm
        foreach ($layer in $values) {
            $layer.FrobeniusNorm | Should -BeGreaterOrEqual $layer.SpectralNorm
            $layer.EffectiveRank | Should -BeGreaterThan 1
            ($layer.EnergyShares | Measure-Object -Sum).Sum | Should -BeLessOrEqual 1.0001
        }

        ($adapted | Get-LoKrAdapter -ByLayer -Values -Name default).FrobeniusNorm | Sort-Object -Unique | Should -Be 0
    }

    It 'measures a file as it does the model' {
        $live = $adapted | Get-LoKrAdapter -ByLayer -Values -Name random | Sort-Object Name
        $file = Get-LoKrAdapter "$TestDrive/random" -ByLayer -Values | Sort-Object Name
        $file.Name | Should -Be $live.Name
        @($file.RelativeNorm | Where-Object { $null -ne $_ }) | Should -BeNullOrEmpty
        $based = Get-LoKrAdapter "$TestDrive/random" -ByLayer -BasePath $tiny | Sort-Object Name
        for ($i = 0; $i -lt $live.Count; $i++) {
            [Math]::Abs($based[$i].RelativeNorm - $live[$i].RelativeNorm) | Should -BeLessThan (1e-6 * $live[$i].RelativeNorm)
            $file[$i].EffectiveRank | Should -Be $based[$i].EffectiveRank
        }
    }

    It 'compares an adapter with its file, and names what differs from another one' {
        $same = $adapted | Compare-LoKrAdapter random "$TestDrive/random"
        $same.RelativeDistance | Should -Be 0
        $same.DifferentSettings | Should -BeNullOrEmpty
        $other = $adapted | Compare-LoKrAdapter random default
        foreach ($setting in 'Alpha', 'TargetModules', 'InitWeights') {
            $other.DifferentSettings | Should -Contain $setting
        }

        $other.DifferentSettings | Should -Not -Contain 'R'
        $other.ReferenceOnlyCount | Should -BeGreaterThan 0
        $rows = $adapted | Compare-LoKrAdapter random default -ByLayer
        ($rows | Where-Object Name -Like '*.key').Presence | Sort-Object -Unique | Should -Be 'ReferenceOnly'
        ($rows | Where-Object Name -Like '*.query').RelativeDistance | Sort-Object -Unique | Should -Be 1
        ($adapted | Compare-LoKrAdapter random default -Setting | Where-Object Setting -EQ Alpha).Difference | Should -Be '4'
    }

    It 'compares answers to data and leaves the model as it was' {
        $active = $adapted.ActiveAdapters
        $answers = $adapted | Compare-LoKrAdapter default "$TestDrive/random" -Data $rowsToMeasure | Select-Object -Last 1
        $answers.RowCount | Should -Be 24
        $answers.ReferenceLoss | Should -Be (Get-Loss $adapted)
        $adapted.ActiveAdapters | Should -Be $active
        $adapted.Adapters.Name | Should -Be 'default', 'random'
        $rows = $adapted | Compare-LoKrAdapter default random -Data $rowsToMeasure -ByRow
        $rows.Count | Should -Be 24
        @($rows | Where-Object IsSame).Count | Should -Be $answers.SameCount
    }

    It 'says what is wrong' {
        Get-ErrorId { $adapted | Compare-LoKrAdapter random none } | Should -Be 'LoKr.AdapterNotFound'
        Get-ErrorId { Compare-LoKrAdapter "$TestDrive/random" "$TestDrive/none" } | Should -Be 'LoKr.PathNotFound'
        $written = [System.Collections.Generic.List[object]]::new()
        Get-ErrorId { Compare-LoKrAdapter "$TestDrive/random" "$TestDrive/random" -Data $rowsToMeasure | ForEach-Object { $written.Add($_) } } | Should -Be 'LoKr.InvalidArgument'
        $written | Should -BeNullOrEmpty
    }
}
