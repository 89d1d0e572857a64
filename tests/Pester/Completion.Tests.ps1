#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What the tab key offers.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:model = Get-AdaptedModel
    $script:pair = @{ Encoder = $model }
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
        @{ Line = 'New-LoKrConfig -TargetModules all'; Expected = 'all-linear' }
        @{ Line = 'New-LoKrConfig | Add-LoKrAdapter $model -Name other | Start-LoKrTraining x -AdapterName d'; Expected = 'default' }
        @{ Line = '$pair.Encoder | Merge-LoKrAdapter d'; Expected = 'default' }
        @{ Line = 'Merge-LoKrAdapter -Model $pair.Encoder -Name d'; Expected = 'default' }
    ) {
        Get-Completion $Line | Should -Contain $Expected
    }

    It 'offers all adapters of a model, and no other words' {
        New-LoKrConfig -TargetModules key | Add-LoKrAdapter -Model $model -Name second
        Get-Completion 'Export-LoKrAdapter -Model $model -Destination x -Name ' | Should -Be 'default', 'second'
        Get-Completion 'Merge-LoKrAdapter -Model $model -Name d' | Should -Be 'default'
        Get-Completion '$model | Merge-LoKrAdapter | Export-LoKrAdapter x -Name s' | Should -Be 'second'
        $model | Remove-LoKrAdapter -Name second
    }

    It 'offers nothing for a model that is not there' {
        Get-Completion 'Merge-LoKrAdapter -Model $nothing -Name d' | Should -Not -Contain 'default'
        Get-Completion '$nothing | Merge-LoKrAdapter d' | Should -Not -Contain 'default'
    }

    It 'offers the names of the model in the line: <Expected> after <Line>' -ForEach @(
        @{ Line = '$model | Get-LoKrModule self.q'; Expected = 'bert.encoder.layer.0.attention.self.query' }
        @{ Line = '$model | Get-LoKrModule query'; Expected = 'bert.encoder.layer.1.attention.self.query' }
        @{ Line = '$model | Start-LoKrTraining x; New-LoKrConfig -TargetModules que'; Expected = 'query' }
        @{ Line = 'New-LoKrConfig -TargetModules query, self.v'; Before = ' | Add-LoKrAdapter $model'; Expected = 'self.value' }
        @{ Line = 'New-LoKrConfig -ModulesToSave cl'; Before = ' | Add-LoKrAdapter $model'; Expected = 'classifier' }
        @{ Line = 'New-LoKrConfig -ModulesToSave po'; Before = ' | Add-LoKrAdapter $model'; Expected = 'pooler' }
        @{ Line = 'New-LoKrConfig -RankPattern '; Before = ' | Add-LoKrAdapter $model'; Expected = "@{ 'query' = 8 }" }
        @{ Line = 'New-LoKrConfig -TargetModules inter'; Before = ' | Measure-LoKrConfig $encoder'; Expected = 'intermediate.dense' }
        @{ Line = 'Import-LoKrModel $encoder | Get-LoKrModule; New-LoKrConfig -ExcludeModules que'; Expected = 'query' }
    ) {
        $after = "$($_['Before'])"
        (TabExpansion2 -inputScript "$Line$after" -cursorColumn $Line.Length).CompletionMatches.CompletionText | Should -Contain $Expected
    }

    It 'offers the names of a folder of diffusers' {
        $pipeline = [LoKr.Testing.TinyPipeline]::Write("$TestDrive/sd")
        $line = 'New-LoKrConfig -TargetModules to_'
        $found = (TabExpansion2 -inputScript "$line | Measure-LoKrConfig '$pipeline'" -cursorColumn $line.Length).CompletionMatches.CompletionText
        $found | Should -Contain 'to_q'
        $found | Should -Contain 'to_out.0'
    }

    It 'never offers files where names are wanted' {
        Push-Location -LiteralPath $TestDrive
        Set-Content -LiteralPath 'queer.txt' -Value ''
        foreach ($line in 'New-LoKrConfig -TargetModules quee', 'New-LoKrConfig -ModulesToSave quee', 'New-LoKrConfig -RankPattern quee', '$model | Get-LoKrModule quee', '$model | Merge-LoKrAdapter quee') {
            Get-Completion $line | Should -Be quee
        }

        Pop-Location
    }

    It 'offers only folders where a folder is wanted' {
        Push-Location -LiteralPath $TestDrive
        $null = New-Item -ItemType Directory -Path 'folder-a'
        Set-Content -LiteralPath 'folder-file.txt' -Value ''
        foreach ($line in 'Import-LoKrModel fold', '$model | Export-LoKrModel fold', 'Merge-LoKrAdapter -Path fold', 'Measure-LoKrConfig -Model fold') {
            Get-Completion $line | Should -Be ".$([IO.Path]::DirectorySeparatorChar)folder-a"
        }

        (Get-Completion 'Get-LoKrAdapter fold').Count | Should -Be 2
        Set-Content -LiteralPath 'folder-weights.safetensors' -Value ''
        Get-Completion 'Merge-LoKrAdapter -Path fold' | Should -Be (@('folder-a', 'folder-weights.safetensors') | ForEach-Object { ".$([IO.Path]::DirectorySeparatorChar)$_" })
        Pop-Location
    }

    It 'offers runs where a run is wanted, with their state' {
        Push-Location -LiteralPath $TestDrive
        $trained = Get-AdaptedTinyModel
        $trained | Start-LoKrTraining -Data $rows -MaxSteps 2 -Seed 1 -RunPath 'runs/run-a'
        $null = New-Item -ItemType Directory -Path 'runs/run-none'
        $separator = [IO.Path]::DirectorySeparatorChar
        foreach ($command in 'Get-LoKrRun', 'Wait-LoKrRun', 'Stop-LoKrRun', 'Remove-LoKrRun', 'LoKr\Get-LoKrRun', '$model | Start-LoKrTraining x -RunPath') {
            Get-Completion "$command run" | Should -Be ".${separator}runs" -Because $command
            $line = "$command runs/ru"
            $found = @((TabExpansion2 -inputScript $line -cursorColumn $line.Length).CompletionMatches)
            $found.ListItemText | Should -Be 'run-a' -Because $command
            $found[0].ToolTip | Should -Be 'Completed, step 2 of 2'
        }

        Remove-Item -LiteralPath 'runs/run-a' -Recurse
        Get-Completion 'Get-LoKrRun runs/ru' | Should -BeLike '*run-none'
        Pop-Location
    }

    It 'offers folders for a registry' {
        Push-Location -LiteralPath $TestDrive
        $null = New-Item -ItemType Directory -Path 'registry-a'
        Set-Content -LiteralPath 'registry-file' -Value ''
        Get-Completion 'Get-LoKrAdapterVersion -Registry regis' | Should -BeLike '*registry-a'
        Get-Completion '$model | Import-LoKrAdapter -Registry regis' | Should -BeLike '*registry-a'
        Pop-Location
    }

    It 'offers the labels of a data file in the line' {
        $line = 'Import-LoKrModel x -Label '
        $found = (TabExpansion2 -inputScript "$line | Start-LoKrTraining '$train'" -cursorColumn $line.Length).CompletionMatches.CompletionText
        $found | Should -Be $labels
    }
}
