#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.5.0' }

# Bad input: an id for scripts, a message and advice for people, and the next object goes on.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'Bad input' {
    BeforeAll {
        $script:model = Get-Model
    }

    AfterAll {
        $model.Dispose()
    }

    It 'reports a missing folder' {
        Get-ErrorId { Import-LoKrModel -Path "$TestDrive/none" -ErrorAction Stop } | Should -Be 'LoKr.PathNotFound'
    }

    It 'goes on with the next folder' {
        $models = @(Import-LoKrModel -Path "$TestDrive/none", $encoder -Label $labels -Device cpu -WarningAction SilentlyContinue -ErrorAction SilentlyContinue -ErrorVariable failed)
        $models.Count | Should -Be 1
        $failed.Count | Should -Be 1
    }

    It 'reports a truncated file' {
        Copy-Item -LiteralPath $encoder -Destination "$TestDrive/cut" -Recurse
        $bytes = [System.IO.File]::ReadAllBytes("$TestDrive/cut/model.safetensors")
        [System.IO.File]::WriteAllBytes("$TestDrive/cut/model.safetensors", $bytes[0..($bytes.Length - 100)])
        Get-ErrorId { Import-LoKrModel -Path "$TestDrive/cut" -Label $labels -ErrorAction Stop } | Should -Be 'LoKr.SafetensorsTruncated'
    }

    It 'reports a path that is no file' {
        Get-ErrorId { Import-LoKrModel -Path Env:/PATH -ErrorAction Stop } | Should -Be 'LoKr.PathNotFileSystem'
    }

    It 'reports <Case> as <Id>' -ForEach @(
        @{ Case = 'a label that the model does not know'; Line = '{"text": "hello", "label": "weather"}'; Id = 'LoKr.LabelUnknown' }
        @{ Case = 'a line that is not JSON'; Line = 'hello'; Id = 'LoKr.DataLineInvalid' }
        @{ Case = 'a missing column'; Line = '{"text": "hello"}'; Id = 'LoKr.DataColumnMissing' }
        @{ Case = 'an empty file'; Line = ''; Id = 'LoKr.DataEmpty' }
    ) {
        Set-Content -LiteralPath "$TestDrive/bad.jsonl" -Value $Line -Encoding utf8NoBOM
        Get-ErrorId { $model | Measure-LoKrModel -Data "$TestDrive/bad.jsonl" -ErrorAction Stop } | Should -Be $Id
    }

    It 'reports a target that no module has' {
        Get-ErrorId { New-LoKrConfig -TargetModules no_such_module | Add-LoKrAdapter -Model $model -ErrorAction Stop } | Should -Be 'LoKr.TargetModuleNotFound'
    }

    It 'advises in the terms of PowerShell, in the record and in the message' {
        try {
            $model | Export-LoKrAdapter -Destination "$TestDrive/none" -ErrorAction Stop
        }
        catch {
            $failed = $_
        }

        $failed.ErrorDetails.RecommendedAction | Should -Match 'Set-LoKrAdapter -Active'
        $failed.Exception.Message | Should -BeLike "*$($failed.ErrorDetails.RecommendedAction)"
    }

    It 'reports an adapter that the model does not have' {
        Get-ErrorId { $model | Merge-LoKrAdapter -Name nobody -ErrorAction Stop } | Should -Be 'LoKr.AdapterNotFound'
        Get-ErrorId { $model | Merge-LoKrAdapter -Name no* -ErrorAction Stop } | Should -Be 'LoKr.AdapterNotFound'
        Get-ErrorId { $model | Remove-LoKrAdapter -Name no* -ErrorAction Stop } | Should -Be 'LoKr.AdapterNotFound'
    }
}

Describe 'An error at the prompt' {
    It 'shows the message, and the advice once' {
        $text = pwsh -NoProfile -NonInteractive -Command "`$PSStyle.OutputRendering = 'PlainText'; Import-Module '$manifest'; New-LoKrConfig -R 0" 2>&1 | Out-String
        $text | Should -Match 'R is 0'
        [regex]::Matches($text, 'to begin with').Count | Should -Be 1
    }

    It 'ends a script with a status other than 0' {
        $null = pwsh -NoProfile -NonInteractive -Command "`$ErrorActionPreference = 'Stop'; Import-Module '$manifest'; Import-LoKrModel ./none" 2>&1
        $LASTEXITCODE | Should -Not -Be 0
    }

    It 'is the host''s own where -Confirm cannot ask' {
        $text = pwsh -NoProfile -NonInteractive -Command "Import-Module '$manifest'; New-LoKrConfig | Add-LoKrAdapter ([TorchSharp.torch+nn]::Linear(4, 4)) -Confirm" 2>&1 | Out-String
        $text | Should -Match 'NonInteractive'
        $text | Should -Not -Match 'bug in the module'
    }
}
