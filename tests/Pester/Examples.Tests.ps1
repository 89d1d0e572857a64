#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# The scripts of examples, as somebody at a prompt runs them; with the real models and data beside the repository where they are there.

BeforeDiscovery {
    # LOKR_FIXTURES names the reference numbers; models and data lie beside them.
    $script:fixtures = $env:LOKR_FIXTURES ? $env:LOKR_FIXTURES : "$PSScriptRoot/../../../shared/fixtures"
    $script:noMinilm = -not ((Test-Path -Path "$fixtures/minilm/accuracy.json") -and (Test-Path -Path "$fixtures/../models/minilm") -and (Test-Path -Path "$fixtures/../data/debian-sections"))
    $script:noDebianLm = -not ((Test-Path -Path "$fixtures/debian-lm/perplexity.json") -and (Test-Path -Path "$fixtures/../models/debian-lm") -and (Test-Path -Path "$fixtures/../data/debian-lm"))
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:examples = Join-Path $root 'examples'

    # The value of a named result in a JSON file of reference numbers.
    function Get-Reference([string] $Path, [string] $Method) {
        $results = (Get-Content -LiteralPath "$fixtures/$Path" -Raw | ConvertFrom-Json).results
        @($results.PSObject.Properties | Where-Object Name -Like "$Method*")[0].Value
    }
}

Describe 'Examples' {
    BeforeEach {
        $script:work = (New-Item -ItemType Directory -Path "$TestDrive/$(New-Guid)").FullName
        Push-Location -LiteralPath $work
    }

    AfterEach {
        Pop-Location
    }

    It 'Quickstart learns to sort tickets, its export answers the same, and nothing is left behind' {
        $lines = @(& "$examples/Quickstart.ps1")
        $accuracies = [regex]::Matches($lines -join "`n", '([0-9.]+) ?% of \d+ held-out tickets are right') | ForEach-Object { [double] $_.Groups[1].Value }
        $accuracies.Count | Should -Be 2
        $accuracies[0] | Should -BeLessThan 35
        $accuracies[1] | Should -BeGreaterThan 85
        $lines[-1] | Should -Match 'gives the same answers'
        Get-ChildItem -LiteralPath $work -Force | Should -BeNullOrEmpty
    }

    It 'nightly publishes what is better, has nothing to do, keeps the champion, and takes a version back' {
        $nights = @(& "$examples/nightly/Play-Nights.ps1" -Path "$work/nights")
        $nights.ExitCode | Should -Be 0, 2, 0, 4, $null -Because ($nights.Message -join ' ')
        $nights.State | Should -Be 'Published', 'NothingToDo', 'Published', 'NotBetter', 'Restored'
        $nights.Champion | Should -Be 1, 1, 2, 2, 1
        $nights[2].Accuracy | Should -BeGreaterThan $nights[0].Accuracy
        foreach ($night in 1..4) {
            # Nothing but the log: no progress, no object, no escape sequence.
            Get-Content -LiteralPath "$work/nights/night-$night.log" | Where-Object { $_ -cnotmatch '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [\x20-\x7E\u00A0-\uFFFF]+$' } | Should -BeNullOrEmpty
            Get-Content -LiteralPath "$work/nights/night-$night.log.err" | Should -BeNullOrEmpty
        }
    }

    It 'Train-TextClassifier compares the head alone with LoKr, and exports' {
        $model = [LoKr.Testing.TinyModel]::WriteBert("$work/model")
        $null = [LoKr.Testing.TinyData]::WriteTickets("$work/train.jsonl", 48, 1)
        $null = [LoKr.Testing.TinyData]::WriteTickets("$work/eval.jsonl", 24, 2)
        $options = @{ ModelPath = $model; Data = 'train.jsonl'; ValidationData = 'eval.jsonl'; MaxLength = 32; MaxSteps = 6; BatchSize = 8; Destination = 'out' }
        $text = & "$examples/Train-TextClassifier.ps1" @options *>&1 | Out-String
        $text | Should -Match '3 labels: access, billing, network'
        # 16 inputs and 3 labels, with a bias each.
        $text | Should -Match '(?m)^HeadTrainableParameterCount +: 51\b'
        $text | Should -Match '(?m)^Steps +: 6\b'
        "$work/out/model.safetensors" | Should -Exist
    }

    It '<Name>: no row to measure on is in the rows to train on, and none is there twice' -ForEach @(
        @{ Name = 'tickets'; Rows = { param($file) (Get-Content -LiteralPath $file | ConvertFrom-Json).text } }
        @{ Name = 'chats'; Rows = { param($file) (Get-Content -LiteralPath $file | ConvertFrom-Json).ForEach{ $_.messages[0].content } } }
        @{ Name = 'incidents'; Rows = { param($file) (Get-Content -LiteralPath $file -Raw) -split '\n\n' | ForEach-Object { ($_.Trim() -split '\n' -replace ' \S+$') -join ' ' } } }
    ) {
        $extension = $Name -eq 'incidents' ? 'conll' : 'jsonl'
        $train, $eval = foreach ($part in 'train', 'eval') { , @(& $Rows "$examples/data/$Name.$part.$extension") }
        $train.Count | Should -BeGreaterThan 299
        $eval | Where-Object { $_ -cin $train } | Should -BeNullOrEmpty
        ($train + $eval) | Group-Object -CaseSensitive | Where-Object Count -GT 1 | Should -BeNullOrEmpty
    }

    It 'Write-IncidentData writes the incidents of this folder' {
        & "$root/tools/Write-IncidentData.ps1" -Destination $work
        foreach ($file in 'incidents.train.conll', 'incidents.eval.conll') {
            (Get-FileHash -LiteralPath "$work/$file").Hash | Should -Be (Get-FileHash -LiteralPath "$examples/data/$file").Hash
        }
    }

    It 'Train-EntityTagger finds the hosts and services of this folder, and exports' {
        $lines = @(& "$examples/Train-EntityTagger.ps1" -Seed 1 -Epochs 5 -Destination out -InformationVariable told -InformationAction SilentlyContinue)
        $result = $lines[-1]
        $result.Types | Should -Be 'HOST', 'PERSON', 'SERVICE', 'VERSION'
        $result.EntityF1 | Should -BeGreaterThan $result.HeadEntityF1
        $result.EntityF1 | Should -BeGreaterThan 0.6
        "$told" | Should -Match '(?s)HOST +web7 .*PERSON +Ms Keller '
        $model = Import-LoKrModel -LiteralPath "$work/out"
        $model.Name | Should -Be 'BertForTokenClassification'
        ($model | Measure-LoKrModel -Data "$examples/data/incidents.eval.conll").EntityF1 | Should -BeGreaterThan ($result.EntityF1 - 0.02)
        $model.Dispose()
    }

    It 'Train-Reranker orders help pages better than before, and exports' {
        $text = & "$examples/Train-Reranker.ps1" -MaxSteps 60 -Destination out *>&1 | Out-String
        $before = [double] [regex]::Match($text, '(?m)^NdcgAt10Before +: (\S+)').Groups[1].Value
        $after = [double] [regex]::Match($text, '(?m)^NdcgAt10 +: (\S+)').Groups[1].Value
        $after | Should -BeGreaterThan ($before + 0.1)
        (Get-Content -LiteralPath "$work/out/config.json" -Raw | ConvertFrom-Json).sentence_transformers.activation_fn | Should -Match 'Sigmoid$'
    }

    It 'Train-SentenceEncoder searches the help of the module, and exports what sentence-transformers loads' {
        $text = & "$examples/Train-SentenceEncoder.ps1" -Seed 0 -Question 'merge an adapter' -Destination out *>&1 | Out-String
        $cmdlets = @(Get-Command -Module LoKr -CommandType Cmdlet)
        $text | Should -Match "(?m)^$($cmdlets.Count) documents, \d{3,4} pairs to learn from"
        $text | Should -Match '(?m)^  merge an adapter -> \w+-LoKr'
        foreach ($measure in 'RecallAt1', 'MrrAt10') {
            $before, $after = foreach ($name in "${measure}Before", $measure) { [double] [regex]::Match($text, "(?m)^$name +: (\S+)").Groups[1].Value }
            $after | Should -BeGreaterThan $before -Because $measure
        }

        "$work/out/modules.json" | Should -Exist
        # Every cmdlet has a question by which the search is measured.
        $asked = (Get-Content -LiteralPath "$examples/data/help.eval.jsonl" | ConvertFrom-Json).relevant | Sort-Object -Unique
        $asked | Should -Be ($cmdlets.Name | Sort-Object)
    }

    It 'Train-SentenceEncoder takes pairs of one''s own' {
        $model = [LoKr.Testing.TinyModel]::WriteBert("$work/model")
        Set-Content -LiteralPath "$work/pairs.jsonl" -Value '{"query": "vpn slow", "positive": "the wifi"}', '{"query": "my invoice", "positive": "refund card"}'
        $text = & "$examples/Train-SentenceEncoder.ps1" -ModelPath $model -Data pairs.jsonl -ValidationData pairs.jsonl -MaxLength 16 -MaxSteps 2 *>&1 | Out-String
        $text | Should -Match '(?m)^2 documents, 2 pairs to learn from'
        $text | Should -Match '(?m)^Steps +: 2\b'
    }

    It 'Train-LanguageModel measures before and after, and completes three prompts' {
        $model = [LoKr.Testing.TinyModel]::WriteLlama("$work/model")
        $null = [LoKr.Testing.TinyData]::WriteCompletions("$work/train.jsonl", 20)
        $null = [LoKr.Testing.TinyData]::WriteCompletions("$work/eval.jsonl", 10)
        $options = @{ ModelPath = $model; Data = 'train.jsonl'; ValidationData = 'eval.jsonl'; MaxLength = 64; MaxSteps = 5; MaxNewTokens = 4; Destination = 'out' }
        $text = & "$examples/Train-LanguageModel.ps1" @options *>&1 | Out-String
        $before = [double] [regex]::Match($text, '(?m)^PerplexityBefore +: (\S+)').Groups[1].Value
        $after = [double] [regex]::Match($text, '(?m)^Perplexity +: (\S+)').Groups[1].Value
        $after | Should -BeLessThan $before
        [regex]::Count($text, '(?m)^  .+ ->') | Should -Be 3
        "$work/out/config.json" | Should -Exist
    }

    It 'Train-LanguageModel ends with status 1 where the destination exists, and keeps it' {
        $model = [LoKr.Testing.TinyModel]::WriteLlama("$work/model")
        $null = [LoKr.Testing.TinyData]::WriteCompletions("$work/train.jsonl", 8)
        $kept = New-Item -ItemType File -Path "$work/out/kept.txt" -Value 'mine' -Force
        $command = "Import-Module -Name '$manifest'; & '$examples/Train-LanguageModel.ps1' -ModelPath '$model' -Data train.jsonl -ValidationData train.jsonl -MaxLength 64 -MaxSteps 1 -Destination out"
        $text = pwsh -NoProfile -NonInteractive -Command $command 2>&1 | Out-String
        $LASTEXITCODE | Should -Be 1
        $text | Should -Match '-Force'
        (Get-ChildItem -LiteralPath "$work/out").FullName | Should -Be $kept.FullName
    }

    It 'Train-ChatModel learns conversations, holds one of two turns, and exports with the template' -ForEach @(@{ Kind = 'Chat' }, @{ Kind = 'Llama' }) {
        $model = $Kind -eq 'Chat' ? [LoKr.Testing.TinyModel]::WriteChat("$work/model", '') : [LoKr.Testing.TinyModel]::WriteLlama("$work/model")
        $null = [LoKr.Testing.TinyData]::WriteChats("$work/chats.jsonl", 40)
        Get-ChildItem -LiteralPath $model -File | Set-ItemProperty -Name IsReadOnly -Value $true
        $before = Get-ChildItem -Path ([System.IO.Path]::GetTempPath()) -Filter 'lokr-chat-*'
        $options = @{ ModelPath = $model; Data = 'chats.jsonl'; ValidationData = 'chats.jsonl'; MaxLength = 64; Epochs = 4; BatchSize = 8; LearningRate = 2e-2; MaxNewTokens = 4; Say = 'vpn', 'wifi'; Destination = 'out' }
        $lines = & "$examples/Train-ChatModel.ps1" @options 6>&1
        $result = $lines[-1]
        $result.Perplexity | Should -BeLessThan $result.PerplexityBefore
        $result.Answers.Count | Should -Be 2
        [regex]::Count(($lines -join "`n"), '(?m)^ +(user|assistant): ') | Should -Be 4
        @($lines -match 'has no chat template').Count | Should -Be ($Kind -eq 'Chat' ? 0 : 1)
        "$work/out/chat_template.jinja" | Should -Exist
        Get-ChildItem -Path ([System.IO.Path]::GetTempPath()) -Filter 'lokr-chat-*' | Should -Be $before
        "$work/model/chat_template.jinja" | Test-Path | Should -Be ($Kind -eq 'Chat')
    }

    It 'StableDiffusion learns images, and writes two and its adapter' {
        $model = [LoKr.Testing.TinyPipeline]::Write("$work/model", $false, $null)
        $null = [LoKr.Testing.TinyImages]::Write("$work/photos", 4)
        $options = @{ ModelPath = $model; Data = 'photos'; Prompt = 'a red rack'; Destination = 'out'; Resolution = 16; MaxSteps = 20; BatchSize = 2; Steps = 3; SampleEvery = 10 }
        $text = & "$examples/StableDiffusion.ps1" @options *>&1 | Out-String
        $text | Should -Match '(?m)^Steps +: 20\b'
        $text | Should -Match '(?m)^PeakMemoryBytes +: [1-9]'
        $files = Get-ChildItem -LiteralPath "$work/out" -Recurse -File | ForEach-Object { [System.IO.Path]::GetRelativePath("$work/out", $_.FullName).Replace('\', '/') } | Sort-Object
        $files | Should -Be 'adapter.safetensors', 'after.png', 'before.png', 'samples/step-000010-1.png', 'samples/step-000020-1.png'
        (Get-FileHash -LiteralPath "$work/out/before.png").Hash | Should -Not -Be (Get-FileHash -LiteralPath "$work/out/after.png").Hash
    }

    It '<Name> says what it needs where the module is missing' -ForEach @(
        Get-ChildItem -Path "$PSScriptRoot/../../examples/*.ps1" | ForEach-Object { @{ Name = $_.Name; File = $_.FullName } }
    ) {
        $text = pwsh -NoProfile -NonInteractive -File $File 2>&1 | Out-String
        $LASTEXITCODE | Should -Not -Be 0
        $text | Should -Match 'LoKr'
    }

    It 'Train-TextClassifier has as many parameters as PEFT on MiniLM' -Skip:$noMinilm {
        $all = Get-Content -LiteralPath "$fixtures/../data/debian-sections/train.jsonl"
        $first = $all | Group-Object -Property { ($_ | ConvertFrom-Json).label } | ForEach-Object { $_.Group[0] }
        Set-Content -LiteralPath "$work/few.jsonl" -Value ($first + $all[0..11])
        $options = @{ ModelPath = "$fixtures/../models/minilm"; Data = 'few.jsonl'; ValidationData = 'few.jsonl'; MaxSteps = 2; BatchSize = 8 }
        $text = & "$examples/Train-TextClassifier.ps1" @options *>&1 | Out-String
        $text | Should -Match "(?m)^HeadTrainableParameterCount +: $((Get-Reference minilm/accuracy.json head-only).trainable)\b"
        $text | Should -Match "(?m)^TrainableParameterCount +: $((Get-Reference minilm/accuracy.json lokr-all-r8).trainable)\b"
    }

    It 'Train-LanguageModel starts from the perplexity of transformers on the Debian model' -Skip:$noDebianLm {
        $data = "$fixtures/../data/debian-lm"
        $options = @{ ModelPath = "$fixtures/../models/debian-lm"; Data = "$data/gnu-r.train.jsonl"; ValidationData = "$data/gnu-r.eval.jsonl"; MaxSteps = 3; BatchSize = 8; MaxNewTokens = 8 }
        $text = & "$examples/Train-LanguageModel.ps1" @options *>&1 | Out-String
        $expected = @(Get-Reference debian-lm/perplexity.json base)[0]
        $actual = [double] [regex]::Match($text, '(?m)^PerplexityBefore +: (\S+)').Groups[1].Value
        [math]::Abs($actual - $expected) | Should -BeLessThan (1e-3 * $expected)
        $text | Should -Match "(?m)^TrainableParameterCount +: $((Get-Reference debian-lm/perplexity.json lokr-all-linear-r8).trainable)\b"
    }
}
