#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Data as people have them: other delimiters and columns, compressed files, rows that do not fit.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:model = Get-TinyModel
    $script:expected = $model | Measure-LoKrModel -Data $rows
    $script:table = Get-Content -LiteralPath $rows | ConvertFrom-Json

    # The same rows with other columns.
    $script:renamed = $table | ForEach-Object { [pscustomobject]@{ subject = $_.text; team = $_.label } }
    $script:column = @{ text = 'subject'; label = 'team' }
}

AfterAll {
    $model.Dispose()
}

Describe 'Data in other forms' {
    It 'is CSV with semicolons, which is said' {
        $renamed | Export-Csv -LiteralPath "$TestDrive/rows.csv" -Delimiter ';'
        $result = $model | Measure-LoKrModel -Data "$TestDrive/rows.csv" -Column $column -InformationVariable said
        $result.Loss | Should -Be $expected.Loss
        "$said" | Should -Be "rows.csv has ';' between its fields."
    }

    It 'is compressed JSON Lines' {
        $file = [System.IO.File]::Create("$TestDrive/rows.jsonl.gz")
        $stream = [System.IO.Compression.GZipStream]::new($file, [System.IO.Compression.CompressionLevel]::Fastest)
        $bytes = [System.IO.File]::ReadAllBytes($rows)
        $stream.Write($bytes, 0, $bytes.Length)
        $stream.Dispose()
        ($model | Measure-LoKrModel -Data "$TestDrive/rows.jsonl.gz").Loss | Should -Be $expected.Loss
    }

    It 'is several files at once' {
        $table | Select-Object -First 40 | ForEach-Object { $_ | ConvertTo-Json -Compress } | Set-Content -LiteralPath "$TestDrive/part1.jsonl"
        ConvertTo-Json @($table | Select-Object -Skip 40) | Set-Content -LiteralPath "$TestDrive/part2.json"
        ($model | Measure-LoKrModel -Data "$TestDrive/part?.json*").Loss | Should -Be $expected.Loss
    }

    It 'is rows from the pipeline with other columns' {
        ($renamed | Measure-LoKrModel -Model $model -Column $column).Loss | Should -Be $expected.Loss
    }

    It 'is measured with other columns' {
        (Measure-LoKrData $renamed -Column $column).Labels.Count | Should -Be (Measure-LoKrData $rows).Labels.Count
        { Measure-LoKrData $renamed -Column @{ text = '' } -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.InvalidArgument,*'
    }
}

Describe 'Rows that do not fit' {
    BeforeAll {
        $script:mixed = "$TestDrive/mixed.jsonl"
        Set-Content -LiteralPath $mixed -Value ((Get-Content -LiteralPath $rows -TotalCount 20) + 'not json' + '{"text": "", "label": "network"}' + '{"text": "a", "label": "unknown"}' + '{"text": "b"}')
    }

    It 'are an error with file and line' {
        { $model | Measure-LoKrModel -Data $mixed -ErrorAction Stop } | Should -Throw -ErrorId 'LoKr.DataLineInvalid,*' -ExpectedMessage '*mixed.jsonl:21*'
    }

    It 'have an empty text in the reference case' {
        $case = Copy-Case empty-text-cell
        $failure = Get-Failure { & "$case/run.ps1" -Base "$fixtures/transformers/bert" }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.DataValueInvalid,*'
        "$failure" | Should -Match 'data\.csv:3'
    }

    It 'are skipped and counted with -SkipInvalid' {
        $result = $model | Measure-LoKrModel -Data $mixed -SkipInvalid -WarningVariable warnings -WarningAction SilentlyContinue
        $result.RowCount | Should -Be 20
        @($warnings).Count | Should -Be 1
        "$warnings" | Should -BeLike '4 rows do not fit and are skipped: mixed.jsonl:21 *mixed.jsonl:22*unknown*mixed.jsonl:23*mixed.jsonl:24*'
    }

    It 'are skipped in a training' {
        $adapted = Get-AdaptedTinyModel
        $adapted | Start-LoKrTraining -Data $mixed -SkipInvalid -MaxSteps 1 -BatchSize 4 -WarningVariable warnings -WarningAction SilentlyContinue
        "$warnings" | Should -BeLike '*4 rows do not fit*'
        $adapted.LastTraining.History.Count | Should -Be 1
        $adapted.Dispose()
    }
}

Describe 'Pairs of texts' {
    It 'are classified with both texts, from objects, hashtables and files' {
        $pair = [pscustomobject]@{ text = 'the vpn is down'; text_pair = 'reset my password' }
        $single = 'the vpn is down' | Invoke-LoKrModel -Model $model
        $result = $pair | Invoke-LoKrModel -Model $model
        $result.TextPair | Should -Be 'reset my password'
        $result.Score | Should -Not -Be $single.Score
        ($result | Format-List | Out-String) | Should -Match 'TextPair\s*: reset my password'
        ($single | Format-List | Out-String) | Should -Not -Match 'TextPair'
        (@{ text = $pair.text; text_pair = $pair.text_pair } | Invoke-LoKrModel -Model $model).Score | Should -Be $result.Score
        $pair | Select-Object @{ n = 'first'; e = 'text' }, @{ n = 'second'; e = 'text_pair' } | Export-Csv -LiteralPath "$TestDrive/pairs.csv"
        (Invoke-LoKrModel -Model $model -Data "$TestDrive/pairs.csv" -Column @{ text = 'first'; text_pair = 'second' }).Score | Should -Be $result.Score
    }

    It 'are trained and measured' {
        $pairs = $table | ForEach-Object { [pscustomobject]@{ text = $_.text; text_pair = 'a second text'; label = $_.label } }
        ($pairs | Measure-LoKrModel -Model $model).Loss | Should -Not -Be $expected.Loss
        $adapted = Get-AdaptedTinyModel
        $adapted | Start-LoKrTraining -Data $pairs -MaxSteps 2 -BatchSize 8 -WarningAction SilentlyContinue
        $adapted.LastTraining.History.Count | Should -Be 2
        $adapted.Dispose()
    }
}
