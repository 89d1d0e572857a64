#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

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

    It 'reports a path that is not a file' {
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

    It 'reports an adapter that the model does not have' {
        Get-ErrorId { $model | Merge-LoKrAdapter -Name nobody -ErrorAction Stop } | Should -Be 'LoKr.AdapterNotFound'
        Get-ErrorId { $model | Merge-LoKrAdapter -Name no* -ErrorAction Stop } | Should -Be 'LoKr.AdapterNotFound'
        Get-ErrorId { $model | Remove-LoKrAdapter -Name no* -ErrorAction Stop } | Should -Be 'LoKr.AdapterNotFound'
    }
}

Describe 'Advice' {
    It 'is in the terms of PowerShell, in the record and in the message' {
        $model = Get-Model
        $failure = Get-Failure { $model | Export-LoKrAdapter -Destination "$TestDrive/none" }
        $failure.ErrorDetails.RecommendedAction | Should -Match 'Set-LoKrAdapter -Active'
        $failure.Exception.Message | Should -BeLike "*$($failure.ErrorDetails.RecommendedAction)"
        $model.Dispose()
    }
}

Describe 'A model folder' {
    BeforeAll {
        # A file of tensors with a header of its own and as many bytes as it asks for.
        function Write-Weight([string] $Header, [int] $Bytes) {
            $text = [System.Text.Encoding]::UTF8.GetBytes($Header.PadRight([math]::Ceiling($Header.Length / 8) * 8))
            [System.IO.File]::WriteAllBytes("$tiny/model.safetensors", [System.BitConverter]::GetBytes([long] $text.Length) + $text + [byte[]]::new($Bytes))
        }
    }

    BeforeEach {
        $script:tiny = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/bert")
    }

    It 'is looked for by name, literally, by wildcard and on drives' {
        (Get-Failure { Import-LoKrModel -Path "$TestDrive/nowhere" }).Exception.Message | Should -Match 'nowhere'
        Get-ErrorId { Import-LoKrModel -LiteralPath "$TestDrive/nowhere" } | Should -Be 'LoKr.PathNotFound'
        Get-ErrorId { Import-LoKrModel -Path "$TestDrive/no*" } | Should -Be 'LoKr.PathNotFound'
        Get-ErrorId { Get-LoKrConfig -Path nodrive:/x } | Should -Be 'LoKr.PathNotFound'
    }

    It 'that is missing does not stop the next' {
        $models = @("$TestDrive/nowhere", $tiny | Import-LoKrModel -Label a, b -ErrorAction SilentlyContinue -ErrorVariable failed -WarningAction SilentlyContinue)
        $models.Count | Should -Be 1
        $failed.FullyQualifiedErrorId | Should -BeLike 'LoKr.PathNotFound,*'
        $models.Dispose()
    }

    It 'follows -ErrorAction' {
        { Import-LoKrModel -Path "$TestDrive/nowhere" -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.PathNotFound,*'
        @(Import-LoKrModel -Path "$TestDrive/nowhere" -ErrorAction Ignore 2>&1).Count | Should -Be 0
    }

    It 'is refused with advice, a category and a target' {
        $failure = Get-Failure { Import-LoKrModel -Path "$TestDrive/nowhere" }
        $advice = $failure.ErrorDetails.RecommendedAction
        $advice | Should -Not -BeNullOrEmpty

        # A host that shows the recommendation shows it once; a script that logs the exception's message has it too.
        $failure.ErrorDetails.Message.Contains($advice) | Should -BeFalse
        $failure.Exception.Message.EndsWith($advice) | Should -BeTrue
        $failure.CategoryInfo.Category | Should -Be 'ObjectNotFound'
        $failure.TargetObject | Should -Not -BeNullOrEmpty
    }

    It 'has whole weights' {
        $file = [System.IO.File]::OpenWrite("$tiny/model.safetensors")
        $file.SetLength($file.Length - 16)
        $file.Dispose()
        Get-ErrorId { Import-LoKrModel -Path $tiny -Label a, b } | Should -Be 'LoKr.SafetensorsTruncated'
    }

    It 'has tensors that do not overlap' {
        Write-Weight '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' 12
        Get-ErrorId { Import-LoKrModel -Path $tiny -Label a, b } | Should -Be 'LoKr.SafetensorsOverlap'
    }

    It 'has weights of a floating-point type' {
        $all = [System.IO.File]::ReadAllBytes("$tiny/model.safetensors")
        $length = [System.BitConverter]::ToInt64($all, 0)
        Write-Weight ([System.Text.Encoding]::UTF8.GetString($all, 8, $length).TrimEnd().Replace('"F32"', '"I32"')) ($all.Length - 8 - $length)
        Get-ErrorId { Import-LoKrModel -Path $tiny -Label a, b } | Should -Be 'LoKr.TensorDTypeMismatch'
    }

    It 'names its type' {
        Set-Content -LiteralPath "$tiny/config.json" -Value '{"hidden_size": 16}'
        Get-ErrorId { Import-LoKrModel -Path $tiny -Label a, b } | Should -Be 'LoKr.ModelTypeMissing'
    }

    It 'is not loaded on another device than the one asked for' {
        Get-ErrorId { Import-LoKrModel -Path $tiny -Label a, b -Device cuda:31 } | Should -Be 'LoKr.DeviceNotFound'
        Get-ErrorId { Import-LoKrModel -Path $tiny -Label a, b -Device tpu } | Should -Be 'LoKr.DeviceInvalid'
    }
}

Describe 'A model in the place of an adapter' {
    It 'is told in one line by <Command>' -ForEach @(
        @{ Command = 'Get-LoKrAdapter'; Script = { Get-LoKrAdapter -Path $encoder } }
        @{ Command = 'Get-LoKrAdapter of a file'; Script = { Get-LoKrAdapter -Path "$encoder/model.safetensors" } }
        @{ Command = 'Get-LoKrConfig'; Script = { Get-LoKrConfig -Path $encoder } }
        @{ Command = 'Convert-LoKrAdapter'; Script = { Convert-LoKrAdapter -Path $encoder -Destination "$TestDrive/x.safetensors" -Format Kohya } }
        @{ Command = 'Merge-LoKrAdapter'; Script = { Merge-LoKrAdapter -Path $encoder -Adapter $encoder -Destination "$TestDrive/x" } }
    ) {
        $failure = Get-Failure $Script
        "$failure" | Should -Match 'model, not an adapter'
        "$failure" | Should -Not -Match "`n"
        $failure.CategoryInfo.Category | Should -Not -Be 'NotSpecified'
    }

    It 'is one finding of Test-LoKrAdapter' {
        $check = Test-LoKrAdapter -Path $encoder
        $check.IsValid | Should -BeFalse
        @($check.Findings).Count | Should -Be 1
    }
}

Describe 'An adapted model' {
    BeforeAll {
        $script:adapted = Get-AdaptedTinyModel
    }

    AfterAll {
        $adapted.Dispose()
    }

    It 'is not changed by a target that it does not have' {
        $failure = Get-Failure { New-LoKrConfig -TargetModules q_proj | Add-LoKrAdapter -Model $adapted -Name other }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.TargetModuleNotFound,*'
        $failure.Exception.Message | Should -Match 'q_proj'
        $adapted.Adapters.Name | Should -Be 'default'
    }

    It 'refuses a second adapter of a name' {
        Get-ErrorId { $adapted | Add-LoKrAdapter -Config (New-LoKrConfig -TargetModules query) } | Should -Be 'LoKr.AdapterExists'
    }

    It 'refuses the adapter name <Name>' -ForEach @(@{ Name = 'a*' }, @{ Name = 'a?' }, @{ Name = '[a]' }, @{ Name = 'a.b' }, @{ Name = ' ' }) {
        Get-ErrorId { $adapted | Add-LoKrAdapter -Config (New-LoKrConfig -TargetModules key) -Name $Name } | Should -Be 'LoKr.AdapterNameInvalid'
    }

    It 'names the parameter of a size that is not possible' {
        $failure = Get-Failure { Import-LoKrModel -Path $tiny -Label a, b -WarningAction SilentlyContinue | Export-LoKrModel -Destination "$TestDrive/none" -MaxShardSize -5 }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.InvalidArgument,*'
        $failure.ErrorDetails.RecommendedAction | Should -Match '-MaxShardSize'
    }

    It 'warns of NaN in LoRA as in every other file' {
        $broken = Get-AdaptedTinyModel
        $tensors = $broken.Adapters[0].GetTensors()
        $guard = [TorchSharp.torch]::no_grad()
        $null = $tensors['classifier.bias'].fill_([double]::NaN)
        $broken | Export-LoKrAdapter -Destination "$TestDrive/broken-lora" -LoraRank 2 -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -Match "3 numbers of 'classifier.bias' are NaN or infinity"
        $null = $tensors['bert.encoder.layer.0.attention.self.query.lokr_w2'].fill_([double]::PositiveInfinity)
        $guard.Dispose()
        $failure = Get-Failure { $broken | Export-LoKrAdapter -Destination "$TestDrive/broken-lora" -LoraRank 2 -Force }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.LoraConversionNotSupported,*'
        "$failure" | Should -Match 'query.*lokr_w2 has NaN or infinity'
        $failure.ErrorDetails.RecommendedAction | Should -Match 'learning rate'
        $broken.Dispose()
    }

    It 'is not trained on a label that it does not know' {
        $failure = Get-Failure { $adapted | Start-LoKrTraining -Data @{ text = 'vpn'; label = 'weather' } }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.LabelUnknown,*'
        $failure.Exception.Message | Should -Match 'weather'
    }

    It 'is not trained on nothing' {
        Set-Content -LiteralPath "$TestDrive/empty.jsonl" -Value '', ''
        Get-ErrorId { $adapted | Start-LoKrTraining -Data "$TestDrive/empty.jsonl" } | Should -Be 'LoKr.DataEmpty'
        Get-ErrorId { $adapted | Measure-LoKrModel -Data "$TestDrive/empty.jsonl" } | Should -Be 'LoKr.DataEmpty'
        Get-ErrorId { $adapted | Start-LoKrTraining -Data @() } | Should -Be 'LoKr.DataEmpty'
    }

    It 'names the line that is not JSON' {
        Set-Content -LiteralPath "$TestDrive/bad.jsonl" -Value '{"text": "vpn", "label": "network"}', '', 'text, label'
        $failure = Get-Failure { $adapted | Start-LoKrTraining -Data "$TestDrive/bad.jsonl" }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.DataLineInvalid,*'
        $failure.Exception.Message | Should -Match 'bad\.jsonl:3'
        $adapted.LastTraining | Should -BeNullOrEmpty
    }

    It 'is not exported before it is merged, and leaves no folder' {
        Get-ErrorId { $adapted | Export-LoKrModel -Destination "$TestDrive/unmerged" } | Should -Be 'LoKr.ExportUnmerged'
        Get-ChildItem -LiteralPath $TestDrive -Force | Where-Object Name -Like '*unmerged*' | Should -BeNullOrEmpty
    }

    It 'replaces what is there only with -Force' {
        $adapted | Export-LoKrAdapter -Destination "$TestDrive/adapter" | Merge-LoKrAdapter | Export-LoKrModel -Destination "$TestDrive/merged"
        $before = Get-Snapshot $TestDrive
        Get-ErrorId { $adapted | Export-LoKrModel -Destination "$TestDrive/merged" } | Should -Be 'LoKr.DestinationExists'
        Get-ErrorId { $adapted | Export-LoKrAdapter -Destination "$TestDrive/adapter" } | Should -Be 'LoKr.DestinationExists'
        Get-Snapshot $TestDrive | Should -Be $before
        $adapted | Export-LoKrAdapter -Destination "$TestDrive/adapter" -Force | Export-LoKrModel -Destination "$TestDrive/merged" -Force
        $adapted | Undo-LoKrMerge
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
