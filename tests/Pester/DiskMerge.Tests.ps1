#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Merge-LoKrAdapter -Path: from folder to folder, without a model.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'A merge on disk' {
    BeforeAll {
        $script:model = Get-AdaptedTinyModel
        $model | Export-LoKrAdapter -Destination "$TestDrive/saved"
    }

    AfterAll {
        $model.Dispose()
    }

    It 'is that in memory, bit by bit' {
        $records = @(Merge-LoKrAdapter -Path "$TestDrive/ber*" -Adapter "$TestDrive/sav*" -Destination "$TestDrive/merged" -Safe -Verbose 4>&1 3>&1)
        $result = $records | Where-Object { $_ -is [LoKr.Core.Model.LoKrMergeResult] }
        $result.Adapters | Should -Be 'saved'
        $result.ModuleCount, $result.SavedModuleCount, $result.ResumedFileCount | Should -Be 4, 1, 0
        $result.Destination | Should -Be (Join-Path $TestDrive 'merged')
        $result.ByteCount | Should -Be (Get-Item -LiteralPath "$TestDrive/merged/model.safetensors").Length
        "$($records | Where-Object { $_ -is [System.Management.Automation.VerboseRecord] })" | Should -Match '4 weights'
        $records | Where-Object { $_ -is [System.Management.Automation.WarningRecord] } | Should -BeNullOrEmpty
        Get-ChildItem -LiteralPath $TestDrive -Force -Filter '.*' | Should -BeNullOrEmpty

        $model | Merge-LoKrAdapter
        $expected = $model.GetBaseState()
        $merged = Import-LoKrModel -Path "$TestDrive/merged"
        $merged.Module.Labels | Should -Be 'network', 'access', 'billing'
        foreach ($pair in $merged.GetBaseState().GetEnumerator()) {
            $pair.Value.eq($expected[$pair.Key]).all().item[bool]() | Should -BeTrue -Because $pair.Key
        }

        $merged.Dispose()
        $model | Undo-LoKrMerge
    }

    It 'shows progress' {
        $shell = [powershell]::Create([System.Management.Automation.RunspaceMode]::NewRunspace)
        $null = $shell.AddScript({
                param($manifest, $folder)
                Import-Module -Name $manifest
                Merge-LoKrAdapter -Path "$folder/bert" -Adapter "$folder/saved" -Destination "$folder/shown" -WarningAction SilentlyContinue
            }).AddArgument($manifest).AddArgument("$TestDrive").Invoke()
        $shell.Streams.Error | Should -BeNullOrEmpty
        $shell.Streams.Progress.Count | Should -BeGreaterThan 0
        $shell.Dispose()
    }

    It 'gives each adapter its weight' {
        $model | Remove-LoKrAdapter -Name default
        New-LoKrConfig -TargetModules query -InitWeights Random | Add-LoKrAdapter -Model $model -Name q -Seed 3 | Export-LoKrAdapter -Destination "$TestDrive/q" -Name q
        (Merge-LoKrAdapter -LiteralPath $tiny -Adapter "$TestDrive/q" -Weight 0.5 -Destination "$TestDrive/one").ModuleCount | Should -Be 2
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/q" -Weight 1, 2 -Destination "$TestDrive/two" } | Should -Be 'LoKr.InvalidArgument'
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/q" -Destination "$TestDrive/one" } | Should -Be 'LoKr.DestinationExists'
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/q" -Destination "$TestDrive/two" -MaxShardSize 0 } | Should -Be 'LoKr.InvalidArgument'
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/q" -Destination $tiny -Force } | Should -Be 'LoKr.ExportIntoSource'
        (Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/q" -Destination "$TestDrive/one" -Force).ModuleCount | Should -Be 2
        "$TestDrive/two" | Should -Not -Exist
    }

    It 'takes the strength of DoRA as said' {
        $dora = Import-LoKrModel -Path $tiny -WarningAction SilentlyContinue
        New-LoKrConfig -TargetModules query -InitWeights Random -WeightDecompose | Add-LoKrAdapter -Model $dora -Seed 3 | Export-LoKrAdapter -Destination "$TestDrive/dora" -WarningAction SilentlyContinue
        $null = $dora | Set-LoKrAdapter -Name default -Scale 0.5 -DoraStrength Lycoris | Merge-LoKrAdapter
        foreach ($meaning in 'Linear', 'Lycoris') {
            $null = Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/dora" -Weight 0.5 -DoraStrength $meaning -Destination "$TestDrive/dora-$meaning"
            $merged = Import-LoKrModel -Path "$TestDrive/dora-$meaning" -WarningAction SilentlyContinue
            $differing = $merged.GetBaseState().GetEnumerator().Where({ $_.Key -like '*query*' -and -not $_.Value.eq($dora.GetBaseState()[$_.Key]).all().item[bool]() })
            $differing.Count | Should -Be ($meaning -eq 'Linear' ? 2 : 0)
            $merged.Dispose()
        }

        $dora.Dispose()
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/q" -DoraStrength Lycoris -Destination "$TestDrive/two" } | Should -Be 'LoKr.InvalidArgument'
        "$TestDrive/two" | Should -Not -Exist
    }

    It 'replaces no folder of documents' {
        $null = New-Item -ItemType Directory -Path "$TestDrive/documents"
        Set-Content -LiteralPath "$TestDrive/documents/letter.txt" -Value letter
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/saved" -Destination "$TestDrive/documents" -Force } | Should -Be 'LoKr.DestinationForeign'
        Get-Content -LiteralPath "$TestDrive/documents/letter.txt" | Should -Be letter
        Remove-Item -LiteralPath "$TestDrive/documents" -Recurse
    }

    It 'does not replace the base through a link above it' {
        Add-Link -Path "$TestDrive/above" -Target (Split-Path $tiny)
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/saved" -Destination "$TestDrive/above/$(Split-Path $tiny -Leaf)" -Force } | Should -Be 'LoKr.ExportIntoSource'
        (Get-Item -LiteralPath "$TestDrive/above").Delete()
    }

    It 'is checked and rehearsed with -WhatIf' {
        $before = Get-Snapshot $TestDrive
        Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/saved" -Destination "$TestDrive/rehearsed" -WhatIf | Should -BeNullOrEmpty
        Get-Snapshot $TestDrive | Should -Be $before
        Get-ErrorId { Merge-LoKrAdapter -Path $tiny -Adapter "$TestDrive/nowhere" -Destination "$TestDrive/rehearsed" -WhatIf } | Should -Be 'LoKr.PathNotFound'
    }
}

Describe 'The memory of a merge on disk' {
    It 'does not grow with the checkpoint' -Skip:(-not $IsLinux) {
        # Each weight has 8 MiB and its multiplied-out w2 4 MiB: kept ones would add 24 times as much.
        function Write-SparseFile([string] $Path, [System.Collections.IDictionary] $Shapes, [string] $Type, [int] $Size) {
            $offset = 0L
            $header = [ordered]@{}
            foreach ($name in $Shapes.Keys) {
                $count = $Size * $Shapes[$name][0] * $Shapes[$name][1]
                $header[$name] = @{ dtype = $Type; shape = $Shapes[$name]; data_offsets = @($offset, ($offset + $count)) }
                $offset += $count
            }

            $bytes = [System.Text.Encoding]::UTF8.GetBytes((ConvertTo-Json -InputObject $header -Compress -Depth 4))
            $file = [System.IO.File]::Create($Path)
            $file.Write([BitConverter]::GetBytes([long] $bytes.Length))
            $file.Write($bytes)
            $file.SetLength(8 + $bytes.Length + $offset)
            $file.Dispose()
        }

        $peaks = foreach ($layers in 4, 28) {
            $folder = New-Item -ItemType Directory -Path "$TestDrive/memory-$layers/base", "$TestDrive/memory-$layers/adapter"
            $weights = [ordered]@{}
            $factors = [ordered]@{}
            foreach ($i in 1..$layers) {
                $weights["layers.$i.proj.weight"] = 2048, 2048
                $factors["base_model.model.layers.$i.proj.lokr_w1"] = 2, 2
                $factors["base_model.model.layers.$i.proj.lokr_w2_a"] = 1024, 16
                $factors["base_model.model.layers.$i.proj.lokr_w2_b"] = 16, 1024
            }

            Write-SparseFile -Path "$($folder[0])/model.safetensors" -Shapes $weights -Type BF16 -Size 2
            Write-SparseFile -Path "$($folder[1])/adapter_model.safetensors" -Shapes $factors -Type F32 -Size 4
            Set-Content -LiteralPath "$($folder[1])/adapter_config.json" -Value '{"peft_type": "LOKR", "r": 16, "alpha": 16, "decompose_factor": 2, "target_modules": ["proj"]}'
            $script = "Import-Module '$manifest'; `$null = Merge-LoKrAdapter -Path '$($folder[0])' -Adapter '$($folder[1])' -Destination '$TestDrive/memory-$layers/out' -WarningAction Ignore; [int] ((Get-Content /proc/self/status) -match '^VmHWM' -replace '\D')[0]"
            [int] (pwsh -NoProfile -NonInteractive -Command $script)
            Remove-Item -LiteralPath "$TestDrive/memory-$layers" -Recurse
        }

        $peaks[1] - $peaks[0] | Should -BeLessThan (48 * 1024)
    }
}

Describe 'A merge on disk of a trained encoder' {
    It 'measures as the merge in memory does' {
        $model = Get-Model
        New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, key | Add-LoKrAdapter -Model $model -Name helpdesk -Seed 1
        $model | Export-LoKrAdapter -Destination "$TestDrive/peft" -Name helpdesk
        $merge = Merge-LoKrAdapter -Path $encoder -Adapter "$TestDrive/peft" -Destination "$TestDrive/merged"
        $merge.Adapters.Count | Should -Be 1
        Get-Display $merge | Should -Match ' 4 '
        $other = Get-Model | Import-LoKrAdapter -Path "$TestDrive/peft" | Merge-LoKrAdapter -PassThru
        $read = Import-LoKrModel -Path "$TestDrive/merged" -Label $labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
        [math]::Abs(($read | Measure-LoKrModel -Data $eval).Loss - ($other | Measure-LoKrModel -Data $eval).Loss) | Should -BeLessThan 1e-3
        $model.Dispose()
        $other.Dispose()
        $read.Dispose()
    }
}
