#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Pipelines of many objects: one bad one among them, a destination for each, rows and texts as objects, names with brackets.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'One bad model of several' {
    BeforeAll {
        $script:good = Get-AdaptedTinyModel
        $script:other = Get-AdaptedTinyModel
        $script:bad = Import-LoKrModel -Path ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/llama"))
        $good | Export-LoKrAdapter -Destination "$TestDrive/saved"
    }

    AfterAll {
        $good, $bad, $other | ForEach-Object Dispose
    }

    It 'is one error of <Command>, and the others are done' -ForEach @(
        @{ Command = 'Export-LoKrAdapter'; Parameters = { @{ Destination = { "$TestDrive/export-$($_.Name)-$([array]::IndexOf($models, $_))" } } }; Id = 'LoKr.AdapterAmbiguous' }
        @{ Command = 'Import-LoKrAdapter'; Parameters = { @{ Path = "$TestDrive/saved"; Name = 'other' } }; Id = 'LoKr.TargetModuleNotFound' }
        @{ Command = 'Set-LoKrAdapter'; Parameters = { @{ Name = 'default'; Scale = 2 } }; Id = 'LoKr.AdapterNotFound' }
        @{ Command = 'Start-LoKrTraining'; Parameters = { @{ Data = $rows; MaxSteps = 1 } }; Id = 'LoKr.NoAdapter' }
        @{ Command = 'Merge-LoKrAdapter'; Parameters = { @{} }; Id = 'LoKr.NothingToMerge' }
        @{ Command = 'Undo-LoKrMerge'; Parameters = { @{} }; Id = 'LoKr.NothingToMerge' }
        @{ Command = 'Remove-LoKrAdapter'; Parameters = { @{ Name = 'default' } }; Id = 'LoKr.AdapterNotFound' }
        @{ Command = 'Add-LoKrAdapter'; Parameters = { @{ Config = New-LoKrConfig -R 2 -TargetModules query -ModulesToSave classifier } }; Id = 'LoKr.TargetModuleNotFound' }
    ) {
        $script:models = $good, $bad, $other
        $values = & $Parameters
        $written = @($models | & $Command @values -ErrorAction SilentlyContinue -ErrorVariable errors | ForEach-Object { $_ })
        $errors.Count | Should -Be 1
        $errors[0].FullyQualifiedErrorId | Should -BeLike "$Id,*"
        $written | Should -Be $good, $other
    }

    It 'has one destination each' {
        "$TestDrive/export-BertForSequenceClassification-0/adapter_model.safetensors", "$TestDrive/export-BertForSequenceClassification-2/adapter_model.safetensors" | Should -Exist
    }

    It 'still ends a call that names it alone, and any with -ErrorAction Stop' {
        { Merge-LoKrAdapter -Model $bad -ErrorAction Continue } | Should -Throw -ErrorId 'LoKr.NothingToMerge,*'
        { $good, $bad | Set-LoKrAdapter -Name none -Active -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.AdapterNotFound,*'
    }

    It 'is named by its folder, so that $Error does not hold the model' {
        $failure = Get-Failure { $bad | Undo-LoKrMerge }
        $failure.TargetObject | Should -BeOfType string
    }
}

Describe 'Many files' {
    BeforeAll {
        $script:model = Get-TinyModel
        $model | Export-LoKrModel -Destination "$TestDrive/base [fp32]"
        New-LoKrConfig -R 2 -TargetModules query -InitWeights Random -ModulesToSave @() | Add-LoKrAdapter $model -Seed 1 -WarningAction SilentlyContinue
        $script:folder = (New-Item -ItemType Directory -Path "$TestDrive/files").FullName
        $model | Export-LoKrAdapter -Destination "$folder/a.safetensors" -Format Kohya | Export-LoKrAdapter -Destination "$folder/style [v1.2].safetensors" -Format Kohya |
            Export-LoKrAdapter -Destination "$TestDrive/peft [1]" | Export-LoKrAdapter -Destination "$TestDrive/peft [2]"
        Set-Content -LiteralPath "$folder/broken.safetensors" -Value 'no tensors'
        Copy-Item -LiteralPath $rows -Destination "$TestDrive/data [1].jsonl"
    }

    AfterAll {
        $model.Dispose()
    }

    It 'are converted, each to a destination of its own; the broken one is one error' {
        $out = (New-Item -ItemType Directory -Path "$TestDrive/out").FullName
        $written = @(Get-ChildItem -Path "$folder/*.safetensors" | Convert-LoKrAdapter -Destination { "$out/$($_.Name)" } -Format Comfy -ErrorAction SilentlyContinue -ErrorVariable errors)
        $errors.Count, $written.Count | Should -Be 1, 2
        $errors[0].TargetObject | Should -BeLike '*broken.safetensors'
        (Get-ChildItem -LiteralPath $out).Name | Should -Be 'a.safetensors', 'style [v1.2].safetensors'
        $again = @("$folder/broken.safetensors", "$folder/a.safetensors" | Convert-LoKrAdapter -Destination { "$out/again-$(Split-Path $_ -Leaf)" } -Format Comfy -ErrorAction SilentlyContinue -ErrorVariable errors)
        $errors.Count, $again.Count | Should -Be 1, 1
    }

    It 'do not replace the results of each other where they have one destination' {
        $one = [System.IO.Path]::GetFullPath("$TestDrive/one.safetensors")
        $written = @(Get-Item -LiteralPath "$folder/a.safetensors", "$folder/style [v1.2].safetensors" |
                Convert-LoKrAdapter -Destination $one -Format Comfy -Force -ErrorAction SilentlyContinue -ErrorVariable errors)
        $errors.Count, $written.Count | Should -Be 1, 1
        $errors[0].FullyQualifiedErrorId | Should -BeLike 'LoKr.DestinationShared,*'
        $errors[0].CategoryInfo.Category | Should -Be 'InvalidArgument'
        (Convert-LoKrAdapter "$folder/a.safetensors" $one -Format Comfy -Force).Path | Should -Be $one
    }

    It 'are merged into a base, each into a folder of its own' {
        $written = @(Get-ChildItem -LiteralPath $TestDrive -Directory | Where-Object Name -Like 'peft*' |
                Merge-LoKrAdapter -Path $tiny -Destination { "$TestDrive/merged-$($_.Name)" })
        $written.Destination | Split-Path -Leaf | Should -Be 'merged-peft [1]', 'merged-peft [2]'
        $row = [pscustomobject] @{ Adapter = "$TestDrive/none" }, [pscustomobject] @{ Adapter = "$TestDrive/peft [1]" }
        $written = @($row | Merge-LoKrAdapter -Path $tiny -Destination { "$TestDrive/rows-$(Split-Path $_.Adapter -Leaf)" } -ErrorAction SilentlyContinue -ErrorVariable errors)
        $errors.Count, $written.Count | Should -Be 1, 1
    }

    It 'take every path of a command literally with -LiteralPath' {
        (Test-LoKrAdapter -LiteralPath "$TestDrive/peft [1]" -BasePath "$TestDrive/base [fp32]" -ErrorAction Stop).Path | Should -Be ([System.IO.Path]::GetFullPath("$TestDrive/peft [1]"))
        (Convert-LoKrAdapter -LiteralPath "$folder/style [v1.2].safetensors" -BasePath "$TestDrive/base [fp32]" -Destination "$TestDrive/back [1]" -Format Peft).Path |
            Should -BeLike '*back `[1`]*'
        (Merge-LoKrAdapter -LiteralPath "$TestDrive/base [fp32]" -Adapter "$TestDrive/peft [1]" -Destination "$TestDrive/literal [1]").ModuleCount | Should -BeGreaterThan 0
        Test-Path -LiteralPath "$TestDrive/literal [1]/config.json" | Should -BeTrue
    }

    It 'keep wildcards in other paths when files of the pipeline are literal' {
        (Get-Item -LiteralPath "$TestDrive/peft [1]" | Test-LoKrAdapter -BasePath "$TestDrive/ber*" -ErrorAction Stop).Path | Should -Be ([System.IO.Path]::GetFullPath("$TestDrive/peft [1]"))
    }

    It 'say that a name with brackets exists: <Case>' -ForEach @(
        @{ Case = '-Path'; Script = { Get-LoKrAdapter -Path "$TestDrive/peft [1]" }; Literal = $true }
        @{ Case = '-BasePath'; Script = { Convert-LoKrAdapter -Path "$folder/a.safetensors" -BasePath "$TestDrive/base [fp32]" -Destination "$TestDrive/x" -Format Peft }; Literal = $true }
        @{ Case = '-Data'; Script = { $model | Start-LoKrTraining -Data "$TestDrive/data [1].jsonl" }; Literal = $false }
        @{ Case = '-Data of rows'; Script = { $model | Measure-LoKrModel -Data "$TestDrive/data [1].jsonl" }; Literal = $false }
    ) {
        $failure = Get-Failure $Script
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.PathNotFound,*'
        "$failure" | Should -Match 'exists when it is taken literally'
        $failure.ErrorDetails.RecommendedAction | Should -Match 'backtick'
        $failure.ErrorDetails.RecommendedAction -match '-LiteralPath' | Should -Be $Literal
    }

    It 'work with a backtick before each bracket' {
        ($model | Measure-LoKrModel -Data "$TestDrive/data ``[1``].jsonl").RowCount | Should -Be 96
    }

    It 'are found or explained in every path of the reference case' {
        $case = Copy-Case bracket-paths
        $outcomes = @(& "$case/run.ps1")
        $outcomes | ForEach-Object { ($_ -split ' ', 2)[0] } | Should -Be 'error', 'ok', 'ok', 'error', 'error'
        $outcomes[0], $outcomes[4] | Should -Match 'exists when it is taken literally'

        # The adapter was made for another model, which is found out from the base in brackets.
        $outcomes[3] | Should -Match 'modules of .* are not in'
    }

    It 'say only what is true where nothing of that name exists' {
        "$(Get-Failure { Get-LoKrAdapter -Path "$TestDrive/none [1]" })" | Should -Not -Match 'literally'
    }
}

Describe 'Rows and texts of the pipeline' {
    BeforeAll {
        $script:model = Get-AdaptedTinyModel
    }

    AfterAll {
        $model.Dispose()
    }

    It 'are measured like the rows of a file' {
        $expected = $model | Measure-LoKrModel -Data $rowsToMeasure
        $measured = Get-Content -LiteralPath $rowsToMeasure | ConvertFrom-Json | Measure-LoKrModel -Model $model
        $measured.RowCount, $measured.Loss, $measured.Accuracy | Should -Be $expected.RowCount, $expected.Loss, $expected.Accuracy
        Get-ErrorId { @{ words = 'vpn' } | Measure-LoKrModel -Model $model } | Should -Be 'LoKr.DataColumnMissing'
    }

    It 'are classified; an object without a text is one error' {
        $answers = @(Get-Content -LiteralPath $rowsToMeasure | ConvertFrom-Json | Invoke-LoKrModel $model)
        $answers.Count | Should -Be 24
        $answers = @([pscustomobject] @{ Text = 'vpn' }, [pscustomobject] @{ Other = 1 }, @{ prompt = 'card' } | Invoke-LoKrModel $model -ErrorAction SilentlyContinue -ErrorVariable errors)
        $answers.Text | Should -Be 'vpn', 'card'
        $errors.Count | Should -Be 1
    }

    It 'are answered but for one for which the model has no numbers, in the same batch' {
        $broken = Get-TinyModel
        try {
            $id = $broken.Tokenizer.Encode('card', $false, $null)[0]
            $null = $broken.Module.get_parameter('bert.embeddings.word_embeddings.weight').detach().select(0, $id).fill_([double]::NaN)
            $answers = @('vpn', 'card', 'login' | Invoke-LoKrModel $broken -ErrorAction SilentlyContinue -ErrorVariable errors)
            $answers.Text | Should -Be 'vpn', 'login'
            $errors.Count | Should -Be 1
            $errors[0].FullyQualifiedErrorId | Should -BeLike 'LoKr.LogitsNotFinite,*'
            $errors[0].TargetObject | Should -Be 'card'
        }
        finally {
            $broken.Dispose()
        }
    }
}
