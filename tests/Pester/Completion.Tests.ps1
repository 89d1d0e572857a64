#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.5.0' }

# What the tab key offers.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:model = Get-AdaptedModel
}

AfterAll {
    $model.Dispose()
}

Describe 'The tab key' {
    It 'offers <Expected> after <Line>' -ForEach @(
        @{ Line = 'New-LoKrConfig -InitWeights L'; Expected = 'Lycoris' }
        @{ Line = 'New-LoKrConfig -TaskType Seq'; Expected = 'SequenceClassification' }
        @{ Line = 'New-LoKrConfig -TargetModules query, v_p'; Expected = 'v_proj' }
        @{ Line = 'New-LoKrConfig -Scaling '; Expected = 'Peft' }
        @{ Line = 'Import-LoKrModel -DType b'; Expected = 'bfloat16' }
        @{ Line = 'Import-LoKrModel -Device a'; Expected = 'auto' }
        @{ Line = 'Test-LoKrRuntime -Device c'; Expected = 'cpu' }
        @{ Line = 'Start-LoKrTraining -Schedule Co'; Expected = 'Cosine' }
        @{ Line = 'Get-LoKrModule -Type Lin'; Expected = 'Linear' }
        @{ Line = '$model | Get-LoKrModule bert.encoder.layer.0'; Expected = 'bert.encoder.layer.0.attention.self.query' }
        @{ Line = '$model | Get-LoKrModule -Type La'; Expected = 'LayerNorm' }
        @{ Line = 'Get-LoKrModule -Model $model -Name bert.p'; Expected = 'bert.pooler' }
        @{ Line = '$model | Merge-LoKrAdapter d'; Expected = 'default' }
        @{ Line = '$model | Merge-LoKrAdapter | Export-LoKrAdapter x -Name '; Expected = 'default' }
        @{ Line = '$model | Set-LoKrAdapter '; Expected = 'default' }
        @{ Line = '$model | Remove-LoKrAdapter '; Expected = 'default' }
        @{ Line = '$model | Get-LoKrConfig -Name '; Expected = 'default' }
        @{ Line = '$model | Start-LoKrTraining x -AdapterName '; Expected = 'default' }
        @{ Line = '$model.LastT'; Expected = 'LastTraining' }
    ) {
        Get-Completion $Line | Should -Contain $Expected
    }
}
