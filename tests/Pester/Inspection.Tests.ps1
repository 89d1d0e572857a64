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
