#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Parameters that have no effect beside others are named in a warning, once, and nothing is said where they have one.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:classifier = Get-AdaptedTinyModel
    $script:language = Import-LoKrModel -Path ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/llama"))
    $script:sd = Import-LoKrModel -Path ([LoKr.Testing.TinyPipeline]::Write("$TestDrive/sd", $false, $null))
    $classifier | Export-LoKrAdapter -Destination "$TestDrive/adapter"

    # The parameters that a command says have no effect, in order.
    function Get-Ignored([scriptblock] $Command) {
        $said = & $Command 3>&1 | Where-Object { $_ -is [System.Management.Automation.WarningRecord] }
        @($said | Select-String -Pattern '^-?(\w+) has no effect ' | ForEach-Object { $_.Matches[0].Groups[1].Value })
    }
}

AfterAll {
    $classifier.Dispose()
    $language.Dispose()
    $sd.Dispose()
}

Describe 'A parameter that has no effect' {
    It 'is named by <Name>' -ForEach @(
        @{
            Name = 'a classifier'; Ignored = 'MaxNewTokens', 'Temperature', 'TopK', 'TopP', 'Seed'
            Command = { 'a', 'b' | Invoke-LoKrModel $classifier -MaxNewTokens 3 -Temperature 1 -TopK 2 -TopP 0.5 -Seed 1 }
        }
        @{
            Name = 'a model that is not a sentence encoder'; Ignored = 'EmbeddingLoss', 'SimilarityScale', 'TripletMargin', 'TripletDistance', 'NoDuplicates'
            Command = { $classifier | Start-LoKrTraining -Data $rows -MaxSteps 1 -EmbeddingLoss Triplet -SimilarityScale 1 -TripletMargin 1 -TripletDistance Cosine -NoDuplicates -WhatIf }
        }
        @{
            Name = 'a text without a sentence encoder'; Ignored = 'PromptName'
            Command = { 'a' | Invoke-LoKrModel $classifier -PromptName query }
        }
        @{
            Name = 'a language model'; Ignored = 'MaxLength', 'BatchSize'
            Command = { 'a', 'b' | Invoke-LoKrModel $language -MaxNewTokens 2 -MaxLength 4 -BatchSize 2 }
        }
        @{
            Name = 'greedy decoding'; Ignored = 'TopK', 'TopP', 'Seed'
            Command = { Invoke-LoKrModel $language 'a' -MaxNewTokens 2 -TopK 2 -TopP 0.5 -Seed 1 }
        }
        @{
            Name = 'a temperature of 0'; Ignored = 'Seed'
            Command = { Invoke-LoKrModel $language 'a' -MaxNewTokens 2 -Temperature 0 -Seed 1 }
        }
        @{
            Name = 'images without guidance and adapters'; Ignored = 'NegativePrompt', 'AdapterScale'
            Command = { Invoke-LoKrModel $sd 'a' -Steps 1 -Destination "$TestDrive/a.png" -NegativePrompt dark -Guidance 1 -AdapterScale 2 -WhatIf }
        }
        @{
            Name = 'a number of steps'; Ignored = 'Epochs', 'WarmupRatio'
            Command = { $classifier | Start-LoKrTraining -Data $rows -Epochs 3 -MaxSteps 1 -WarmupRatio 0.1 -WarmupSteps 1 -WhatIf }
        }
        @{
            Name = 'training without validation data'; Ignored = 'Metric', 'Patience', 'MinimumImprovement', 'KeepBest'
            Command = { $classifier | Start-LoKrTraining -Data $rows -Metric Loss -Patience 2 -MinimumImprovement 0.1 -KeepBest -WhatIf }
        }
        @{
            Name = 'training without patience'; Ignored = 'MinimumImprovement'
            Command = { $classifier | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MinimumImprovement 0.1 -WhatIf }
        }
        @{
            Name = 'a run that must continue'; Ignored = 'Force'
            Command = { $classifier | Start-LoKrTraining -Data $rows -RunPath "$TestDrive/run" -Resume Required -Force -WhatIf }
        }
        @{
            Name = 'a comparison without data'; Ignored = 'BatchSize', 'MaxLength', 'BasePath'
            Command = { $classifier | Compare-LoKrAdapter default default -BatchSize 2 -MaxLength 4 -BasePath $tiny }
        }
        @{
            Name = 'a description without values'; Ignored = 'BasePath'
            Command = { Get-LoKrAdapter -Path "$TestDrive/adapter" -BasePath $tiny }
        }
        @{
            Name = 'a check against a model'; Ignored = 'BasePath'
            Command = { Test-LoKrAdapter -Path "$TestDrive/adapter" -Model $classifier -BasePath $tiny }
        }
        @{
            Name = 'a conversion'; Ignored = 'BasePath', 'Alpha'
            Command = { Convert-LoKrAdapter "$TestDrive/adapter" "$TestDrive/converted" -Format Peft -Model $classifier -BasePath $tiny -Scaling None -Alpha 2 -WhatIf }
        }
        @{
            Name = 'an import'; Ignored = 'Alpha'
            Command = { $classifier | Import-LoKrAdapter -Path "$TestDrive/adapter" -Name other -Scaling None -Alpha 2 -WhatIf }
        }
        @{
            Name = 'full matrices'; Ignored = 'DecomposeBoth', 'UseEffectiveConv2d'
            Command = { Resize-LoKrAdapter "$TestDrive/adapter" "$TestDrive/resized" -FullMatrix -DecomposeBoth -UseEffectiveConv2d -WhatIf }
        }
    ) {
        Get-Ignored $Command | Should -Be $Ignored
    }

    It 'is refused where it contradicts another one' {
        Get-ErrorId { New-LoKrAdapter $tiny $tiny "$TestDrive/new" -R 2 -TargetModules query -TargetModulePattern query } | Should -Be 'LoKr.InvalidArgument'
    }

    It 'is not named where it has one' -ForEach @(
        @{ Command = { 'a', 'b' | Invoke-LoKrModel $classifier -MaxLength 4 -BatchSize 1 } }
        @{ Command = { Invoke-LoKrModel $language 'a' -MaxNewTokens 2 -Temperature 1 -TopK 2 -TopP 0.5 -Seed 1 } }
        @{ Command = { Invoke-LoKrModel $sd 'a' -Steps 1 -Destination "$TestDrive/b.png" -NegativePrompt dark -WhatIf } }
        @{ Command = { $classifier | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MaxSteps 1 -WarmupRatio 0.1 -Metric Loss -Patience 2 -MinimumImprovement 0.1 -KeepBest -WhatIf } }
        @{ Command = { $classifier | Start-LoKrTraining -Data $rows -RunPath "$TestDrive/run" -Force -WhatIf } }
        @{ Command = { Compare-LoKrAdapter "$TestDrive/adapter" "$TestDrive/adapter" -BasePath $tiny } }
        @{ Command = { Get-LoKrAdapter -Path "$TestDrive/adapter" -Values -BasePath $tiny } }
        @{ Command = { Convert-LoKrAdapter "$TestDrive/adapter" "$TestDrive/converted" -Format Peft -Scaling Peft -Alpha 2 -WhatIf } }
    ) {
        Get-Ignored $Command | Should -BeNullOrEmpty
    }
}
