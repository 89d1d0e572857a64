#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Adapters made from models and from other adapters, without a model in memory.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # Factors with random values on the tiny model, without whole modules.
    function Export-Random([string] $Path, [long] $Seed, [string[]] $TargetModules = @('query', 'value')) {
        $model = Get-TinyModel
        try {
            New-LoKrConfig -R 2 -Alpha 4 -TargetModules $TargetModules -ModulesToSave @() -InitWeights Random | Add-LoKrAdapter -Model $model -Seed $Seed -WarningAction SilentlyContinue
            $model | Export-LoKrAdapter $Path -WarningAction SilentlyContinue
        }
        finally {
            $model.Dispose()
        }
    }
}

Describe 'New-LoKrAdapter' {
    BeforeAll {
        Export-Random "$TestDrive/made" 3
        $null = Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/made" -Destination "$TestDrive/tuned" -WarningAction SilentlyContinue
    }

    It 'finds the adapter that was merged' {
        $result = New-LoKrAdapter $tiny "$TestDrive/tuned" "$TestDrive/found" -R 2
        $made = Get-LoKrAdapter -Path "$TestDrive/made"
        $result.ModuleCount | Should -Be $made.ModuleCount
        $result.Error | Should -BeLessThan 1e-4
        $result.UnchangedCount | Should -BeGreaterThan 0
        $result.LeftOut | Should -BeNullOrEmpty
        $null = Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/found" -Destination "$TestDrive/again" -WarningAction SilentlyContinue
        $losses = foreach ($folder in 'tuned', 'again') {
            $model = Import-LoKrModel "$TestDrive/$folder" -Label network, access, billing -Seed 1 -WarningAction SilentlyContinue
            Get-Loss $model
            $model.Dispose()
        }
        $losses[1] | Should -BeGreaterThan ($losses[0] - 1e-4)
        $losses[1] | Should -BeLessThan ($losses[0] + 1e-4)
        (Get-LoKrConfig "$TestDrive/found").R | Should -Be 2
    }

    It 'takes the word for all linear layers, which are the default' {
        $words = foreach ($target in @{}, @{ TargetModules = 'all-linear' }) {
            (New-LoKrAdapter $tiny "$TestDrive/tuned" "$TestDrive/linear" -R 2 @target -Force -WarningAction SilentlyContinue).ModuleCount
        }
        $words[0] | Should -BeGreaterThan 2
        $words[1] | Should -Be $words[0]
    }

    It 'says what changed and is left out' {
        $null = New-LoKrAdapter $tiny "$TestDrive/tuned" "$TestDrive/part" -R 2 -TargetModules query -WarningVariable said -WarningAction SilentlyContinue -OutVariable part
        $part.LeftOut | Should -Not -BeNullOrEmpty
        "$said" | Should -BeLike "*$($part.LeftOut.Count) tensors differ and are not in the adapter*"
    }

    It 'shows what -WhatIf would do, refuses what the run refuses, and writes nothing' {
        New-LoKrAdapter $tiny "$TestDrive/tuned" "$TestDrive/rehearsed" -WhatIf
        "$TestDrive/rehearsed" | Should -Not -Exist
        { New-LoKrAdapter $tiny "$TestDrive/tuned" "$TestDrive/made" -WhatIf } | Should -Throw -ErrorId 'LoKr.DestinationExists,LoKr.PowerShell.Commands.NewLoKrAdapterCommand'
        { New-LoKrAdapter $tiny "$TestDrive/tuned" "$TestDrive/other" -R 2 -Energy 0.5 -WhatIf } | Should -Throw -ErrorId 'LoKr.InvalidArgument,LoKr.PowerShell.Commands.NewLoKrAdapterCommand'
        { New-LoKrAdapter $tiny $tiny "$TestDrive/other" } | Should -Throw -ErrorId 'LoKr.NoModuleTargeted,LoKr.PowerShell.Commands.NewLoKrAdapterCommand'
    }
}

Describe 'Resize-LoKrAdapter' {
    BeforeAll {
        Export-Random "$TestDrive/a" 1
    }

    It 'copies what has the same shapes, and says what a type costs' {
        (Resize-LoKrAdapter "$TestDrive/a" "$TestDrive/same").Error | Should -BeLessThan 1e-6
        (Get-FileHash "$TestDrive/same/adapter_model.safetensors").Hash | Should -Not -BeNullOrEmpty
        (Compare-LoKrAdapter "$TestDrive/a" "$TestDrive/same").RelativeDistance | Should -Be 0
        (Resize-LoKrAdapter "$TestDrive/a" "$TestDrive/half" -DType bfloat16).Error | Should -BeGreaterThan 1e-4
    }

    It 'writes one adapter for each of a pipeline, and goes on after one that is broken' {
        $null = New-Item "$TestDrive/broken" -ItemType Directory
        $results = "$TestDrive/broken", "$TestDrive/a" | Resize-LoKrAdapter -Destination { "$TestDrive/out-$(Split-Path -Leaf $_)" } -R 1 -ErrorAction SilentlyContinue -ErrorVariable failed
        @($results).Count | Should -Be 1
        $results.LargestRank | Should -Be 1
        $results.Error | Should -BeGreaterThan 0
        @($failed).Count | Should -BeGreaterThan 0
    }
}

Describe 'New-LoKrAdapter of folders of the pipeline' {
    It 'takes the names of objects as they are, and patterns of texts' {
        Export-Random "$TestDrive/made" 3
        $null = Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/made" -Destination "$TestDrive/tuned [v1]" -WarningAction SilentlyContinue
        $made = Get-Item -LiteralPath "$TestDrive/tuned [v1]" | New-LoKrAdapter $tiny -Destination "$TestDrive/of-object" -R 2 -ErrorAction Stop
        $again = "$TestDrive/tuned*" | New-LoKrAdapter $tiny -Destination "$TestDrive/of-text" -R 2 -ErrorAction Stop
        $again.ModuleCount | Should -Be $made.ModuleCount
        { New-LoKrAdapter $tiny "$TestDrive/tuned [v1]" "$TestDrive/pattern" -R 2 } | Should -Throw -ErrorId 'LoKr.PathNotFound,*'
    }
}

Describe 'Join-LoKrAdapter' {
    BeforeAll {
        Export-Random "$TestDrive/first" 1
        Export-Random "$TestDrive/second" 2
    }

    It 'adds an adapter to itself exactly, and two others as near as it says' {
        (Join-LoKrAdapter "$TestDrive/first", "$TestDrive/first" "$TestDrive/twice" -Weight 0.25, 0.75).Error | Should -BeLessThan 1e-6
        (Compare-LoKrAdapter "$TestDrive/first" "$TestDrive/twice").RelativeDistance | Should -BeLessThan 1e-6
        (Join-LoKrAdapter "$TestDrive/first", "$TestDrive/second" "$TestDrive/both").Error | Should -BeGreaterThan 0.01
    }

    It 'takes the adapters from the pipeline' {
        $result = Get-Item "$TestDrive/first", "$TestDrive/second" | Join-LoKrAdapter -Destination "$TestDrive/piped" -Weight 0.5 -MaxParameters 100
        $result.ParameterCount | Should -BeLessOrEqual 100
        $result.Layers[0].psobject.Properties.Name | Should -Contain 'Error'
    }

    It 'writes nothing where one of the adapters is not there' {
        $result = "$TestDrive/first", "$TestDrive/none", "$TestDrive/second" | Join-LoKrAdapter -Destination "$TestDrive/partial" -ErrorAction SilentlyContinue -ErrorVariable errors -WarningVariable warnings -WarningAction SilentlyContinue
        $result | Should -BeNullOrEmpty
        "$TestDrive/partial" | Should -Not -Exist
        $errors.FullyQualifiedErrorId | Should -BeLike 'LoKr.PathNotFound,*'
        "$warnings" | Should -BeLike '*partial*'
    }

    It 'refuses a number of weights that fits nothing' {
        { Join-LoKrAdapter "$TestDrive/first", "$TestDrive/second" "$TestDrive/none" -Weight 1, 2, 3 } | Should -Throw -ErrorId 'LoKr.InvalidArgument,LoKr.PowerShell.Commands.JoinLoKrAdapterCommand'
    }

    It 'is shown in a table, here and after a job' {
        $result = Join-LoKrAdapter "$TestDrive/first", "$TestDrive/second" "$TestDrive/shown" -FullMatrix
        $copy = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($result, 3))
        foreach ($one in $result, $copy) {
            $text = $one | Out-String -Width 120
            $text | Should -Match 'Parameters\s+Error\s+Path'
            $text | Should -Match 'full'
            $one.Layers | Out-String -Width 120 | Should -Match 'W1\s+W2\s+Rank'
        }
    }
}
