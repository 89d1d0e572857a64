#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# -WhatIf: the session says what would happen, and nothing does.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'With -WhatIf' {
    BeforeEach {
        $script:model = Get-AdaptedModel
    }

    AfterEach {
        $model.Dispose()
        Remove-Item -Path "$TestDrive/*" -Recurse
    }

    It '<Command> leaves the model as it is' -ForEach @(
        @{ Command = 'Add-LoKrAdapter'; Script = { New-LoKrConfig -TargetModules key | Add-LoKrAdapter -Model $model -Name other -WhatIf -PassThru } }
        @{ Command = 'Set-LoKrAdapter'; Script = { $model | Set-LoKrAdapter -Name default -Scale 3 -WhatIf -PassThru } }
        @{ Command = 'Disable-LoKrAdapter'; Script = { $model | Disable-LoKrAdapter -WhatIf -PassThru } }
        @{ Command = 'Enable-LoKrAdapter'; Script = { $model | Enable-LoKrAdapter -WhatIf -PassThru } }
        @{ Command = 'Remove-LoKrAdapter'; Script = { $model | Remove-LoKrAdapter -Name * -WhatIf -PassThru } }
        @{ Command = 'Merge-LoKrAdapter'; Script = { $model | Merge-LoKrAdapter -WhatIf -PassThru } }
        @{ Command = 'Undo-LoKrMerge'; Script = { $model | Merge-LoKrAdapter -WhatIf | Undo-LoKrMerge -WhatIf -PassThru } }
        @{ Command = 'Merge-LoKrAdapter -Safe'; Script = { $model | Merge-LoKrAdapter -Safe -WhatIf -PassThru } }
        @{ Command = 'Start-LoKrTraining'; Script = { $model | Start-LoKrTraining -Data $train -WhatIf -PassThru } }
    ) {
        $before = ($model | Measure-LoKrModel -Data $eval).Loss
        & $Script | Should -Be $model
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -Be $before
        $model.Adapters.Name | Should -Be 'default'
        $model.AdaptersEnabled | Should -BeTrue
        @($model.MergedAdapters).Count | Should -Be 0
        $model.LastTraining | Should -BeNullOrEmpty
    }

    It 'Import-LoKrAdapter loads nothing' {
        $model | Export-LoKrAdapter -Destination "$TestDrive/saved"
        $model | Import-LoKrAdapter -Path "$TestDrive/saved" -Name other -WhatIf | Should -Be $model
        $model.Adapters.Name | Should -Be 'default'
    }

    It 'Start-LoKrTraining takes rows of the pipeline' {
        @{ text = 'vpn'; label = 'network' }, @{ text = 'card'; label = 'billing' } | Start-LoKrTraining -Model $model -WhatIf | Should -Be $model
        $model.LastTraining | Should -BeNullOrEmpty
    }

    It 'a merge stays, and its export is not written' {
        $model | Merge-LoKrAdapter | Undo-LoKrMerge -WhatIf | Export-LoKrModel -Destination "$TestDrive/merged" -WhatIf
        $model.MergedAdapters | Should -Be 'default'
        "$TestDrive/merged" | Should -Not -Exist
    }

    It 'a training after a rehearsed adapter leaves the model without one' {
        $fresh = Get-Model
        $before = $fresh.CountParameters()
        New-LoKrConfig -R 2 -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter $fresh -Name other -WhatIf | Start-LoKrTraining $train -MaxSteps 3 -AdapterName other -WhatIf -ErrorAction Stop
        $fresh.Adapters.Count | Should -Be 0
        $fresh.CountParameters() | Should -Be $before
        $fresh.Dispose()
    }

    It 'the rest of a script finds an adapter whose import was rehearsed' {
        $fresh = Get-Model
        $model | Export-LoKrAdapter -Destination "$TestDrive/saved"
        $fresh | Import-LoKrAdapter "$TestDrive/saved" -WhatIf -ErrorAction Stop | Merge-LoKrAdapter -WhatIf -ErrorAction Stop | Undo-LoKrMerge -WhatIf -ErrorAction Stop
        $fresh | Import-LoKrAdapter "$TestDrive/saved" -Name night -Trainable -WhatIf | Start-LoKrTraining $train -AdapterName night -MaxSteps 2 -WhatIf -ErrorAction Stop
        $fresh | Merge-LoKrAdapter nig* -WhatIf -ErrorAction Stop
        $fresh.Adapters.Count | Should -Be 0
        $fresh.Dispose()
    }

    It 'a file that cannot be imported is refused as without it: <Case>' -ForEach @(
        @{ Case = 'other shapes'; Change = { Copy-Item -Recurse "$TestDrive/saved" "$TestDrive/bad"; $file = "$TestDrive/bad/adapter_config.json"; (Get-Content $file -Raw) -replace '"r": 4', '"r": 5' | Set-Content $file }; Id = 'LoKr.AdapterShapeMismatch' }
        @{ Case = 'no weights'; Change = { Copy-Item -Recurse "$TestDrive/saved" "$TestDrive/bad"; Remove-Item "$TestDrive/bad/*.safetensors" }; Id = 'LoKr.AdapterFileNotFound' }
        @{ Case = 'a name that exists'; Change = { Copy-Item -Recurse "$TestDrive/saved" "$TestDrive/bad" }; Id = 'LoKr.AdapterExists' }
    ) {
        $model | Export-LoKrAdapter -Destination "$TestDrive/saved"
        & $Change
        $count = $model.CountParameters()
        Get-ErrorId { $model | Import-LoKrAdapter "$TestDrive/bad" -WhatIf } | Should -Be $Id
        Get-ErrorId { $model | Import-LoKrAdapter "$TestDrive/bad" } | Should -Be $Id
        $model.CountParameters() | Should -Be $count
    }

    It 'a merge that is not finite is refused with -Safe, and the weights stay' {
        $layer = $model.Adapters[0].Layers[0]
        $null = $model.Adapters[0].FlatParameters[0].Value.fill_([TorchSharp.Scalar] 1e30)
        $before = $layer.Module.weight.sum().item[float]()
        Get-ErrorId { $model | Merge-LoKrAdapter -Safe -WhatIf } | Should -Be 'LoKr.MergeNotFinite'
        Get-ErrorId { $model | Merge-LoKrAdapter -Safe } | Should -Be 'LoKr.MergeNotFinite'
        $layer.Module.weight.sum().item[float]() | Should -Be $before
    }

    It '<Case> is refused as without it' -ForEach @(
        @{ Case = 'a merge of an adapter that is not there'; Script = { $model | Merge-LoKrAdapter other -WhatIf }; Id = 'LoKr.AdapterNotFound' }
        @{ Case = 'a merge without adapters'; Script = { Get-Model | Merge-LoKrAdapter -WhatIf }; Id = 'LoKr.NothingToMerge' }
        @{ Case = 'a merge of adapters that are off'; Script = { $model | Disable-LoKrAdapter -PassThru | Merge-LoKrAdapter -WhatIf }; Id = 'LoKr.AdaptersDisabled' }
        @{ Case = 'taking back no merge'; Script = { $model | Undo-LoKrMerge -WhatIf }; Id = 'LoKr.NothingToMerge' }
        @{ Case = 'an adapter that targets nothing'; Script = { New-LoKrConfig -TargetModules nothing | Add-LoKrAdapter $model -Name other -WhatIf }; Id = 'LoKr.TargetModuleNotFound' }
        @{ Case = 'an adapter of a name that exists'; Script = { New-LoKrConfig -TargetModules key | Add-LoKrAdapter $model -WhatIf }; Id = 'LoKr.AdapterExists' }
        @{ Case = 'a training without an adapter'; Script = { Get-Model | Start-LoKrTraining $train -WhatIf }; Id = 'LoKr.NoAdapter' }
        @{ Case = 'an export in a layout without saved modules'; Script = { $model | Export-LoKrAdapter "$TestDrive/x.safetensors" -Format Kohya -WhatIf }; Id = 'LoKr.ConversionUnsupported' }
        @{ Case = 'an export to a folder as a file'; Script = { $model | Export-LoKrAdapter "$TestDrive/x" -Format Comfy -WhatIf }; Id = 'LoKr.InvalidArgument' }
        @{ Case = 'an export over a folder that exists'; Script = { $model | Export-LoKrAdapter $root -WhatIf }; Id = 'LoKr.DestinationExists' }
        @{ Case = 'an export of LoRA over a folder that exists'; Script = { $model | Export-LoKrAdapter $root -LoraRank 2 -WhatIf }; Id = 'LoKr.DestinationExists' }
        @{ Case = 'an export of a model over a folder that exists'; Script = { $model | Export-LoKrModel $root -WhatIf }; Id = 'LoKr.DestinationExists' }
        @{ Case = 'a conversion of a model'; Script = { Convert-LoKrAdapter $encoder "$encoder/model.safetensors" -Format Kohya -WhatIf }; Id = 'LoKr.AdapterKeyInvalid' }
        @{ Case = 'an export of LoRA without a rank'; Script = { $model | Export-LoKrAdapter "$TestDrive/x" -LoraRank 0 -WhatIf }; Id = 'LoKr.RankInvalid' }
    ) {
        Get-ErrorId $Script | Should -Be $Id
        Get-ChildItem -LiteralPath $TestDrive | Should -BeNullOrEmpty
    }

    It 'nothing is written' {
        $model | Export-LoKrAdapter -Destination "$TestDrive/adapter" -WhatIf
        $model | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/merged" -WhatIf
        Get-ChildItem -LiteralPath $TestDrive | Should -BeNullOrEmpty
    }

    It 'the whole pipeline is rehearsed' {
        $fresh = Get-Model
        $WhatIfPreference = $true
        New-LoKrConfig -TargetModules query | Add-LoKrAdapter -Model $fresh | Start-LoKrTraining -Data $train | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/x"
        $WhatIfPreference = $false
        $fresh.Adapters.Count | Should -Be 0
        Get-ChildItem -LiteralPath $TestDrive | Should -BeNullOrEmpty
    }
}

Describe 'Every cmdlet that changes state or writes' {
    It 'has -WhatIf and -Confirm, and those that only read have not' {
        # Invoke-LoKrModel writes pictures or nothing, depending on the model.
        $read = 'Get', 'Test', 'Measure', 'New', 'Compare', 'Wait'
        foreach ($command in Get-Command -Module LoKr | Where-Object Name -NotIn 'Import-LoKrModel', 'Invoke-LoKrModel') {
            # Other cmdlets with New make objects; these write files.
            $writes = $command.Verb -notin $read -or $command.Name -in 'New-LoKrAdapter', 'New-LoKrJob'
            $command.Parameters.ContainsKey('WhatIf') | Should -Be $writes -Because $command.Name
        }
    }
}
