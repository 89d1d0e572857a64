#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Configurations: made from arguments and objects, read from files and models.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'New-LoKrConfig' {
    It 'takes the defaults of PEFT' {
        $config = New-LoKrConfig
        $config.Equals([LoKr.Core.Configuration.LoKrConfig]::new()) | Should -BeTrue
        $config.R | Should -Be 8
        $config.Alpha | Should -Be 8
        $config.DecomposeFactor | Should -Be -1
    }

    It 'has a parameter for every property' {
        $parameters = (Get-Command -Name New-LoKrConfig).Parameters.Keys
        [LoKr.Core.Configuration.LoKrConfig].GetProperties().Name | Where-Object { $_ -notin $parameters } | Should -BeNullOrEmpty
    }

    It 'passes its arguments on' {
        $options = @{
            R                    = 4
            Alpha                = 16.5
            TargetModules        = 'query', 'value'
            ExcludeModulePattern = '.*\.0\..*'
            ModulesToSave        = 'classifier'
            InitWeights          = $false
            DecomposeFactor      = 8
            DecomposeBoth        = $true
            RankDropout          = 0.1
            RankDropoutScale     = $true
            ModuleDropout        = 0.2
            LayersToTransform    = 0, 1
            LayersPattern        = 'layer'
            RankPattern          = [ordered] @{ query = 2; value = 3 }
            AlphaPattern         = @{ query = 1 }
            TaskType             = 'SEQ_CLS'
            BaseModelNameOrPath  = 'base'
            Revision             = 'main'
            InferenceMode        = $true
            Scaling              = 'Lycoris'
            Factorization        = 'Lycoris'
        }
        $config = New-LoKrConfig @options
        $config.R, $config.Alpha, $config.DecomposeFactor, $config.DecomposeBoth | Should -Be 4, 16.5, 8, $true
        $config.TargetModules.Names | Should -Be 'query', 'value'
        $config.ExcludeModules.Pattern | Should -Be '.*\.0\..*'
        $config.ModulesToSave | Should -Be 'classifier'
        $config.InitWeights, $config.RankDropout, $config.RankDropoutScale, $config.ModuleDropout | Should -Be 'Random', 0.1, $true, 0.2
        $config.LayersToTransform | Should -Be 0, 1
        $config.RankPattern | ForEach-Object { "$($_.Key) $($_.Value)" } | Should -Be 'query 2', 'value 3'
        $config.AlphaPattern | ForEach-Object { "$($_.Key) $($_.Value)" } | Should -Be 'query 1'
        $config.TaskType, $config.BaseModelNameOrPath, $config.Revision, $config.InferenceMode | Should -Be 'SequenceClassification', 'base', 'main', $true
        $config.Scaling, $config.Factorization | Should -Be 'Lycoris', 'Lycoris'
    }

    It 'spells initializations as PEFT or as the module does: <Value>' -ForEach @(
        @{ Value = $true; Expected = 'Default' }
        @{ Value = 'false'; Expected = 'Random' }
        @{ Value = 'lycoris'; Expected = 'Lycoris' }
        @{ Value = 'Default'; Expected = 'Default' }
    ) {
        (New-LoKrConfig -InitWeights $Value).InitWeights | Should -Be $Expected
    }

    It 'tells names from patterns' {
        (New-LoKrConfig -TargetModules query).TargetModules.Pattern | Should -BeNullOrEmpty
        (New-LoKrConfig -TargetModules all-linear).TargetModules.Pattern | Should -Be 'all-linear'
        (New-LoKrConfig -TargetModulePattern '.*query').TargetModules.Pattern | Should -Be '.*query'
    }

    It 'warns of a hashtable of several patterns, whose order is not kept' {
        New-LoKrConfig -RankPattern @{ a = 1; b = 2 } -WarningVariable several -WarningAction SilentlyContinue | Should -Not -BeNullOrEmpty
        New-LoKrConfig -RankPattern @{ a = 1 } -WarningVariable one | Should -Not -BeNullOrEmpty
        New-LoKrConfig -RankPattern ([ordered] @{ a = 1; b = 2 }) -WarningVariable ordered | Should -Not -BeNullOrEmpty
        $several.Count, $one.Count, $ordered.Count | Should -Be 1, 0, 0
    }

    It 'takes its fields by property name' {
        $configs = @([pscustomobject] @{ R = 2; Alpha = 4; TargetModules = 'a', 'b' }, [pscustomobject] @{ Rank = 3 } | New-LoKrConfig -DecomposeFactor 4)
        $configs.R | Should -Be 2, 3
        "$($configs[0])" | Should -Be 'r 2, alpha 4 on a, b'
        $configs[1].DecomposeFactor | Should -Be 4
    }

    It 'takes back <Case> from JSON, CLIXML and a job' -ForEach @(
        @{ Case = 'the defaults'; Options = @{} }
        @{ Case = 'names and patterns'; Options = @{
                R = 4; Alpha = 16.5; TargetModules = 'query', 'value'; ExcludeModulePattern = '.*\.0\..*'; ModulesToSave = 'classifier'; InitWeights = 'Lycoris'
                LayersToTransform = 0, 1; LayersPattern = 'layer'; RankPattern = [ordered] @{ query = 2; 'a.value' = 3 }; AlphaPattern = @{ query = 1.5 }
                TaskType = 'SEQ_CLS'; BaseModelNameOrPath = 'base'; Revision = 'main'; InferenceMode = $true; WeightDecompose = $true; WeightDecomposeAxis = 'Input'; Scaling = 'Lycoris'
            }
        }
        @{ Case = 'a pattern of targets'; Options = @{ TargetModulePattern = '.*(query|value)'; ExcludeModules = 'key'; UseScalar = $true; Conv1dLayout = 'Kronecker'; ShapesFromFile = $true } }
        @{ Case = 'all-linear and a class'; Options = @{ TargetModules = 'all-linear'; AutoMapping = [pscustomobject] @{ BaseModelClass = 'BertModel'; ParentLibrary = 'transformers' } } }
        @{ Case = 'one of everything'; Options = @{ TargetModules = 'query'; ExcludeModules = 'key'; LayersToTransform = 1; RankPattern = @{ query = 2 } } }
        @{ Case = 'no target but a head'; Options = @{ TargetModules = @(); ModulesToSave = 'classifier' } }
    ) {
        $config = New-LoKrConfig @Options
        $text = [LoKr.Core.Configuration.LoKrConfigJson]::Write($config)
        $config | ConvertTo-Json | Set-Content -LiteralPath "$TestDrive/c.json"
        $config | Export-Clixml -LiteralPath "$TestDrive/c.xml"
        $copies = @(
            Get-Content -LiteralPath "$TestDrive/c.json" | ConvertFrom-Json | New-LoKrConfig -WarningVariable warnings
            Import-Clixml -LiteralPath "$TestDrive/c.xml" | New-LoKrConfig
            $config | New-LoKrConfig
        )
        $copies.Count, $warnings.Count | Should -Be 3, 0
        foreach ($copy in $copies) {
            [LoKr.Core.Configuration.LoKrConfigJson]::Write($copy) | Should -Be $text
        }

        ($config | ConvertTo-Json | ConvertFrom-Json | New-LoKrConfig -R 3).R | Should -Be 3
    }

    It 'takes patterns as a JSON object too' {
        $config = '{ "R": 4, "RankPattern": { "value": 2, "query": 3 } }' | ConvertFrom-Json | New-LoKrConfig
        $config.RankPattern | ForEach-Object { "$($_.Key) $($_.Value)" } | Should -Be 'value 2', 'query 3'
    }

    It 'refuses objects that are not configurations: <Case>' -ForEach @(
        @{ Case = 'the file of PEFT'; Value = [pscustomobject] @{ peft_type = 'LOKR'; r = 4; target_modules = 'query' }; Advice = 'Get-LoKrConfig' }
        @{ Case = 'a text'; Value = 'query'; Advice = 'TargetModules' }
        @{ Case = 'another object'; Value = [pscustomobject] @{ Size = 4 }; Advice = 'TargetModules' }
    ) {
        $failure = Get-Failure { $Value | New-LoKrConfig }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.InvalidArgument,*'
        $failure.ErrorDetails.RecommendedAction | Should -Match $Advice
    }

    It 'refuses the pattern with a filter of layers of the reference case' {
        $case = Copy-Case pattern-with-layers
        Get-ErrorId { & "$case/run.ps1" -Base "$fixtures/transformers/llama" } | Should -Be 'LoKr.LayersPatternInvalid'
    }

    It 'refuses <Arguments>' -ForEach @(
        @{ Arguments = '-R 0'; Id = 'LoKr.RankInvalid' }
        @{ Arguments = '-R -3'; Id = 'LoKr.RankInvalid' }
        @{ Arguments = '-Alpha NaN'; Id = 'LoKr.AlphaInvalid' }
        @{ Arguments = '-RankDropout 1'; Id = 'LoKr.DropoutInvalid' }
        @{ Arguments = '-DecomposeFactor 0'; Id = 'LoKr.DecomposeFactorInvalid' }
        @{ Arguments = '-LayersPattern layer'; Id = 'LoKr.LayersPatternInvalid' }
        @{ Arguments = "-TargetModulePattern '.*\.query' -LayersToTransform 1"; Id = 'LoKr.LayersPatternInvalid' }
        @{ Arguments = '-TargetModules all-linear -LayersToTransform 1'; Id = 'LoKr.LayersPatternInvalid' }
        @{ Arguments = "-TargetModulePattern '('"; Id = 'LoKr.PatternInvalid' }
        @{ Arguments = '-TargetModules a -TargetModulePattern b'; Id = 'LoKr.InvalidArgument' }
        @{ Arguments = "-TargetModules '.*query'"; Id = 'LoKr.InvalidArgument' }
        @{ Arguments = "-RankPattern @{ a = 'x' }"; Id = 'LoKr.InvalidArgument' }
        @{ Arguments = '-RankPattern @{ a = 0 }'; Id = 'LoKr.RankInvalid' }
        @{ Arguments = '-WeightDecompose -RankDropout 0.1'; Id = 'LoKr.OptionNotSupported' }
    ) {
        $failure = Get-Failure ([scriptblock]::Create("New-LoKrConfig $Arguments"))
        $failure.FullyQualifiedErrorId | Should -BeLike "$Id,*"
        $failure.CategoryInfo.Category | Should -Not -Be 'NotSpecified'
    }
}

Describe 'Get-LoKrConfig' {
    BeforeAll {
        $script:model = Get-AdaptedTinyModel
        $model | Export-LoKrAdapter -Destination "$TestDrive/a[1]" | Export-LoKrAdapter -Destination "$TestDrive/a2"
    }

    AfterAll {
        $model.Dispose()
    }

    It 'reads folders, files and wildcards' {
        (Get-LoKrConfig -LiteralPath "$TestDrive/a[1]").R | Should -Be 2
        @(Get-LoKrConfig -Path "$TestDrive/a*" -ErrorAction Stop).Count | Should -Be 2
        @(Get-LoKrConfig -Path "$TestDrive/a2/adapter_config.json").Count | Should -Be 1
        @([pscustomobject] @{ PSPath = "$TestDrive/a2" } | Get-LoKrConfig).Count | Should -Be 1
        @(Get-Item -LiteralPath "$TestDrive/a2" | Get-LoKrConfig).Count | Should -Be 1
    }

    It 'reads models' {
        ($model | Get-LoKrConfig).R | Should -Be 2
        @(Get-LoKrConfig -Model $model -Name def*).Count | Should -Be 1
        Get-ErrorId { Get-LoKrConfig -Model $model -Name other } | Should -Be 'LoKr.AdapterNotFound'
    }

    It 'starts at the current location, not at that of the process' {
        Push-Location -LiteralPath $TestDrive
        try {
            $model | Export-LoKrAdapter -Destination ./here
            "$TestDrive/here/adapter_model.safetensors" | Should -Exist
            @(Get-LoKrConfig -Path ./here).Count | Should -Be 1
        }
        finally {
            Pop-Location
        }
    }
}
