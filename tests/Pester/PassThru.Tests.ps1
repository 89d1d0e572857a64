#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What the cmdlets that work on a model write: the model for the next command, nothing at the end, both with -PassThru.

BeforeDiscovery {
    $script:cases = @(
        @{ Command = 'Add-LoKrAdapter'; Parameters = { @{ Config = New-LoKrConfig -TargetModules key; Name = 'other' } } }
        @{ Command = 'Set-LoKrAdapter'; Parameters = { @{ Name = 'default'; Scale = 2 } } }
        @{ Command = 'Enable-LoKrAdapter'; Parameters = { @{} } }
        @{ Command = 'Disable-LoKrAdapter'; Parameters = { @{} } }
        @{ Command = 'Remove-LoKrAdapter'; Parameters = { @{ Name = 'default' } } }
        @{ Command = 'Import-LoKrAdapter'; Parameters = { @{ Path = "$TestDrive/saved"; Name = 'other' } } }
        @{ Command = 'Export-LoKrAdapter'; Parameters = { @{ Destination = "$TestDrive/again"; Force = $true } } }
        @{ Command = 'Merge-LoKrAdapter'; Parameters = { @{} } }
        @{ Command = 'Start-LoKrTraining'; Parameters = { @{ Data = $rows; MaxSteps = 1 } } }
    )
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe '<Command>' -ForEach $cases {
    BeforeEach {
        $script:model = Get-AdaptedTinyModel
        $model | Export-LoKrAdapter -Destination "$TestDrive/saved" -Force
        $script:values = & $Parameters
    }

    AfterEach {
        $model.Dispose()
    }

    It 'writes nothing at the end of a pipeline, in a script block and a rehearsal too' {
        $rehearsed = $model | & $Command @values -WhatIf
        $rehearsed | Should -BeNullOrEmpty
        $written = & { $model | & $Command @values }
        $written | Should -BeNullOrEmpty
    }

    It 'writes the model for the command that follows' {
        $model | & $Command @values | ForEach-Object { $_ } | Should -Be $model
    }

    It 'writes the model with -PassThru' {
        $written = & { $model | & $Command @values -PassThru }
        $written | Should -Be $model
    }
}

Describe 'A pipeline of them' {
    It 'is a sentence, and writes nothing' {
        $model = Get-TinyModel
        $written = New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier | Add-LoKrAdapter $model | Start-LoKrTraining $rows -MaxSteps 1 |
            Merge-LoKrAdapter | Undo-LoKrMerge
        $written | Should -BeNullOrEmpty
        $model.LastTraining.History.Count | Should -Be 1
        $model | Merge-LoKrAdapter
        $undone = $model | Undo-LoKrMerge -PassThru
        $undone | Should -Be $model
        $model.Dispose()
    }

    It 'writes steps alone with -ReportStep, and the model after them with -PassThru' {
        $model = Get-AdaptedTinyModel
        $written = @($model | Start-LoKrTraining $rows -MaxSteps 2 -ReportStep -PassThru)
        $written.Count | Should -Be 3
        $written[2] | Should -Be $model
        $model.Dispose()
    }

    It 'prints no model at the prompt' {
        $text = pwsh -NoProfile -NonInteractive -Command "Import-Module '$manifest'; [TorchSharp.torch+nn]::Linear(4, 4) | Add-LoKrAdapter -Config (New-LoKrConfig -R 1 -TargetModules all-linear); 'done'" 2>&1 | Out-String
        $text.Trim() | Should -Be 'done'
    }
}

Describe 'The examples' {
    It 'do not discard what is not written' {
        $files = Get-ChildItem -Path "$root/README.md", "$root/docs", "$root/examples", "$root/tests/Pester" -Recurse -File -Include *.md, *.ps1
        $name = '(?:Add|Set|Enable|Disable|Remove|Import|Export)-LoKrAdapter|Undo-LoKrMerge|Start-LoKrTraining|Export-LoKrModel'
        $files | Select-String -Pattern "\b(?:$name)\b[^|]*\| *Out-Null", "\`$null = (?:[^|(]*\|)* *(?:$name)\b[^|]*$" | ForEach-Object { "$($_.Path):$($_.LineNumber)" } | Should -BeNullOrEmpty
    }
}
