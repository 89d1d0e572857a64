#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.5.0' }

# The story of the module on machines with pwsh. `dotnet test` covers every cmdlet on the engine alone; this covers what only pwsh has:
# the module as users import it, views, jobs, Get-Help.

BeforeDiscovery {
    $script:commands = (Import-PowerShellDataFile -LiteralPath "$PSScriptRoot/../../LoKr.psd1").CmdletsToExport
}

BeforeAll {
    $root = (Resolve-Path -LiteralPath "$PSScriptRoot/../..").Path

    # build.ps1 names the module it has built; by hand: $env:LOKR_MODULE = './artifacts/bin/LoKr.PowerShell/debug/LoKr.psd1'
    $manifest = $env:LOKR_MODULE ? $env:LOKR_MODULE : (Join-Path $root 'artifacts/bin/LoKr.PowerShell/debug/LoKr.psd1')
    Import-Module -Name $manifest -Force

    $encoder = Join-Path $root 'examples/models/tiny-encoder'
    $script:train = Join-Path $root 'examples/data/tickets.train.jsonl'
    $script:eval = Join-Path $root 'examples/data/tickets.eval.jsonl'
    $labels = 'access', 'billing', 'email', 'hardware', 'network', 'software'

    function Get-Model {
        Import-LoKrModel -Path $encoder -Label $labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
    }

    function Get-ErrorId([scriptblock] $Script) {
        try {
            & $Script
        }
        catch {
            return ($_.FullyQualifiedErrorId -split ',')[0]
        }

        throw 'There was no error.'
    }
}

Describe 'The module' {
    It 'has a valid manifest with the version of the assemblies' {
        $info = Test-ModuleManifest -Path (Get-Module LoKr).Path.Replace('LoKr.PowerShell.dll', 'LoKr.psd1')
        $assembly = [LoKr.Core.Adapters.LoKrModel].Assembly.GetName().Version
        "$($assembly.Major).$($assembly.Minor).$($assembly.Build)" | Should -Be "$($info.Version)"
    }

    It 'exports <_>' -ForEach $commands {
        Get-Command -Name $_ -Module LoKr | Should -Not -BeNullOrEmpty
    }

    It 'exports nothing else' {
        (Get-Command -Module LoKr).Count | Should -Be (Import-PowerShellDataFile -LiteralPath "$PSScriptRoot/../../LoKr.psd1").CmdletsToExport.Count
    }

    It 'names libtorch and its devices' {
        $runtime = Get-LoKrRuntime
        $runtime.LibtorchVersion | Should -Not -BeNullOrEmpty
        Test-LoKrRuntime | Should -BeTrue
    }
}

Describe 'A configuration' {
    It 'takes the defaults of PEFT' {
        $config = New-LoKrConfig
        $config.R | Should -Be 8
        $config.Alpha | Should -Be 8
        $config.DecomposeFactor | Should -Be -1
    }

    It 'refuses rank 0' {
        Get-ErrorId { New-LoKrConfig -R 0 -ErrorAction Stop } | Should -Be 'LoKr.RankInvalid'
    }
}

Describe 'The story' {
    BeforeAll {
        $script:model = Get-Model
        $script:texts = 'The printer has a paper jam.', 'I forgot my password.', 'Please send the invoice again.'
    }

    AfterAll {
        $model.Dispose()
    }

    It 'adds an adapter' {
        $before = $model | Measure-LoKrModel -Data $eval
        $passed = New-LoKrConfig -R 8 -Alpha 16 -TargetModules all-linear -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1
        $passed | Should -Be $model
        $model.Adapters.Count | Should -Be 1

        # A fresh adapter changes nothing.
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -BeGreaterThan ($before.Loss - 1e-5)
        ($model | Measure-LoKrModel -Data $eval).Loss | Should -BeLessThan ($before.Loss + 1e-5)
    }

    It 'lists the adapted modules' {
        $modules = @($model | Get-LoKrModule -Adapted)
        $modules.Count | Should -BeGreaterThan 10
        $modules.Name | Should -Contain 'bert.encoder.layer.0.attention.self.query'
    }

    It 'rehearses training with -WhatIf' {
        $null = $model | Start-LoKrTraining -Data $train -Epochs 1 -WhatIf
        $model.LastTraining | Should -BeNullOrEmpty
    }

    It 'trains' {
        $null = $model | Start-LoKrTraining -Data $train -ValidationData $eval -Epochs 3 -BatchSize 16 -LearningRate 1e-2 -WarmupRatio 0.06 -Seed 1
        $training = $model.LastTraining
        $training.StopReason | Should -Be 'Completed'
        $training.History.Count | Should -Be $training.History[-1].TotalSteps
        $training.After.Accuracy | Should -BeGreaterThan 0.6
    }

    It 'stops when the pipeline stops' {
        $steps = @($model | Start-LoKrTraining -Data $train -Epochs 100 -ReportStep | Select-Object -First 3)
        $steps.Count | Should -Be 3
    }

    It 'merges, and takes the merge back' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $null = $model | Merge-LoKrAdapter
        $model.MergedAdapters | Should -Be 'default'
        $merged = @($texts | Invoke-LoKrModel -Model $model)
        $merged.Label | Should -Be $answers.Label
        $null = $model | Undo-LoKrMerge
        @($model.MergedAdapters).Count | Should -Be 0
        @($texts | Invoke-LoKrModel -Model $model).Label | Should -Be $answers.Label
    }

    It 'exports the adapter, and imports it again' {
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $null = $model | Export-LoKrAdapter -Destination "$TestDrive/adapter"
        (Get-Content -Raw -LiteralPath "$TestDrive/adapter/adapter_config.json" | ConvertFrom-Json).peft_type | Should -Be 'LOKR'
        $other = Get-Model
        try {
            $null = $other | Import-LoKrAdapter -Path "$TestDrive/adapter"
            @($texts | Invoke-LoKrModel -Model $other).Label | Should -Be $answers.Label
        }
        finally {
            $other.Dispose()
        }
    }

    It 'exports the model, and imports it again' {
        $null = $model | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/merged"
        $answers = @($texts | Invoke-LoKrModel -Model $model)
        $other = Import-LoKrModel -Path "$TestDrive/merged" -Device cpu
        try {
            $again = @($texts | Invoke-LoKrModel -Model $other)
            $again.Label | Should -Be $answers.Label
            for ($i = 0; $i -lt $texts.Count; $i++) {
                [math]::Abs($again[$i].Score - $answers[$i].Score) | Should -BeLessThan 1e-4
            }
        }
        finally {
            $other.Dispose()
        }
    }

    It 'writes nothing with -WhatIf' {
        $null = $model | Export-LoKrModel -Destination "$TestDrive/rehearsed" -WhatIf
        "$TestDrive/rehearsed" | Should -Not -Exist
    }

    It 'keeps what is there without -Force' {
        Get-ErrorId { $model | Export-LoKrModel -Destination "$TestDrive/merged" -ErrorAction Stop } | Should -Be 'LoKr.DestinationExists'
    }
}

Describe 'Bad input' {
    It 'reports a missing folder' {
        Get-ErrorId { Import-LoKrModel -Path "$TestDrive/none" -ErrorAction Stop } | Should -Be 'LoKr.PathNotFound'
    }

    It 'reports a truncated file' {
        Copy-Item -LiteralPath $encoder -Destination "$TestDrive/cut" -Recurse
        $bytes = [System.IO.File]::ReadAllBytes("$TestDrive/cut/model.safetensors")
        [System.IO.File]::WriteAllBytes("$TestDrive/cut/model.safetensors", $bytes[0..($bytes.Length - 100)])
        Get-ErrorId { Import-LoKrModel -Path "$TestDrive/cut" -Label $labels -ErrorAction Stop } | Should -Be 'LoKr.SafetensorsTruncated'
    }

    It 'reports <Case> as <Id>' -ForEach @(
        @{ Case = 'a label that the model does not know'; Line = '{"text": "hello", "label": "weather"}'; Id = 'LoKr.LabelUnknown' }
        @{ Case = 'a line that is not JSON'; Line = 'hello'; Id = 'LoKr.DataLineInvalid' }
        @{ Case = 'a missing column'; Line = '{"text": "hello"}'; Id = 'LoKr.DataColumnMissing' }
        @{ Case = 'an empty file'; Line = ''; Id = 'LoKr.DataEmpty' }
    ) {
        Set-Content -LiteralPath "$TestDrive/bad.jsonl" -Value $Line -Encoding utf8NoBOM
        $model = Get-Model
        try {
            Get-ErrorId { $model | Measure-LoKrModel -Data "$TestDrive/bad.jsonl" -ErrorAction Stop } | Should -Be $Id
        }
        finally {
            $model.Dispose()
        }
    }

    It 'reports a target that no module has' {
        $model = Get-Model
        try {
            Get-ErrorId { New-LoKrConfig -TargetModules no_such_module | Add-LoKrAdapter -Model $model -ErrorAction Stop } | Should -Be 'LoKr.TargetModuleNotFound'
        }
        finally {
            $model.Dispose()
        }
    }
}

Describe 'Views and help' {
    It 'shows the modules of a model as a table' {
        $model = Get-Model
        try {
            $text = $model | Get-LoKrModule | Out-String -Width 200
            $text | Should -Match 'bert\.encoder\.layer\.0\.attention\.self\.query'
            ($model | Out-String -Width 200) | Should -Match 'BertForSequenceClassification'
        }
        finally {
            $model.Dispose()
        }
    }

    It 'explains <_>' -ForEach $commands {
        (Get-Help -Name $_).Synopsis.Trim() | Should -Not -BeNullOrEmpty
    }
}

Describe 'The quickstart' {
    It 'runs' {
        $lines = @(& (Join-Path $root 'examples/Quickstart.ps1') -Epochs 2 -WarningAction SilentlyContinue)
        $lines[-1] | Should -Match 'same answers'
    }
}
