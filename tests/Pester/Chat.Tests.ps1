#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Conversations: training, measuring and jobs on rows of messages, and a model that answers them.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # Writes the date before the first message, and the end of text after each answer.
    $script:chat = [LoKr.Testing.TinyModel]::WriteChat("$TestDrive/chat", "{{ strftime_now('%d') }}")
    $script:chats = [LoKr.Testing.TinyData]::WriteChats("$TestDrive/chats.jsonl", 40)

    function Get-ChatModel([switch] $Adapted) {
        $model = Import-LoKrModel -LiteralPath $chat -Device cpu
        if ($Adapted) {
            New-LoKrConfig -R 4 -Alpha 8 -TargetModules all-linear | Add-LoKrAdapter -Model $model -Seed 1
        }

        $model
    }
}

Describe 'Rows that are conversations' {
    BeforeEach {
        $script:model = Get-ChatModel -Adapted
    }

    AfterEach {
        $model.Dispose()
    }

    It 'are measured alike from files, hashtables, objects and other shapes' {
        $few = Get-Content -LiteralPath $chats -TotalCount 4 | ForEach-Object { $_ | ConvertFrom-Json }
        $tables = foreach ($row in $few) { @{ messages = @(foreach ($message in $row.messages) { @{ role = $message.role; content = $message.content } }) } }
        $shared = foreach ($row in $few) { [pscustomobject] @{ conversations = @([pscustomobject] @{ from = 'human'; value = $row.messages[0].content }; @{ from = 'gpt'; value = $row.messages[1].content }) } }
        $alpaca = foreach ($row in $few) { @{ instruction = $row.messages[0].content; input = $null; output = $row.messages[1].content } }
        $list = foreach ($row in $few) { @{ messages = [System.Collections.Generic.List[object]] $row.messages } }
        Set-Content -LiteralPath "$TestDrive/few.json" -Value (ConvertTo-Json -InputObject @($few) -Depth 5)
        $expected = $model | Measure-LoKrModel -Data "$TestDrive/few.json"
        # "ok" and the end of the text.
        $expected.TokenCount | Should -Be 12
        $expected.ExactMatch | Should -Be 0
        $generic = [System.Collections.Generic.Dictionary[string, string]]::new()
        $tables[0].messages[0].GetEnumerator() | ForEach-Object { $generic[$_.Key] = $_.Value }
        $tables[0].messages[0] = $generic
        foreach ($data in $few, $tables, $shared, $alpaca, $list) {
            ($model | Measure-LoKrModel -Data $data).Loss | Should -Be $expected.Loss
            ($data | Measure-LoKrModel -Model $model).Loss | Should -Be $expected.Loss
        }

        ($few | ForEach-Object { [pscustomobject] @{ dialog = $_.messages } } | Measure-LoKrModel -Model $model -Column @{ messages = 'dialog' }).Loss | Should -Be $expected.Loss
        ($model | Measure-LoKrModel -Data $few -LossOn All).TokenCount | Should -BeGreaterThan 12
    }

    It 'are learned on what the assistant says, or on every token' {
        $model | Start-LoKrTraining -Data $chats -ValidationData $chats -Epochs 20 -BatchSize 8 -LearningRate 2e-2 -Seed 1 -KeepBest -Metric ExactMatch
        $model.LastTraining.After.ExactMatch | Should -Be 1
        ($model | Measure-LoKrModel -Data $chats).ExactMatch | Should -Be 1
        $model | Start-LoKrTraining -Data $chats -MaxSteps 1 -BatchSize 4 -Seed 1 -LossOn All
        $all = $model.LastTraining.History[0].Loss
        $model | Start-LoKrTraining -Data $chats -MaxSteps 1 -BatchSize 4 -Seed 1
        $all | Should -BeGreaterThan $model.LastTraining.History[0].Loss
    }

    It 'that are refused or cut are said' {
        $bad = @{ messages = @(@{ role = 'user'; content = 'p' }, @{ content = 'q' }) }
        Get-ErrorId { $model | Measure-LoKrModel -Data $bad } | Should -Be 'LoKr.DataValueInvalid'
        $said = $null
        $null = $model | Measure-LoKrModel -Data $chats, $bad -SkipInvalid -WarningVariable said -WarningAction SilentlyContinue
        $said | Should -Match '^1 row does not fit and is skipped: Message 2 in the messages of row 2 has no role'
        $null = $model | Measure-LoKrModel -Data $chats -MaxLength 12 -WarningVariable said -WarningAction SilentlyContinue
        "$said" | Should -Match '\d+ of 40 answers are not whole within 12 tokens'
        $tagger = Get-TinyModel
        $null = $tagger | Measure-LoKrModel -Data $script:rowsToMeasure -LossOn All -WarningVariable said -WarningAction SilentlyContinue
        $said | Should -Be '-LossOn has no effect for a model that is not a language model.'
        $tagger.Dispose()
    }

    It 'need a chat template' {
        $other = Import-LoKrModel -LiteralPath ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/plain")) -Device cpu
        Get-ErrorId { $other | Measure-LoKrModel -Data $chats } | Should -Be 'LoKr.ChatTemplateMissing'
        $other.Dispose()
    }

    It 'are counted with their turns before a training' {
        $summary = Measure-LoKrData -Data $chats -Model $model -MaxLength 12
        $summary.ConversationCount, $summary.TurnCount, $summary.AnswerCount | Should -Be 40, 80, 40
        $summary.CutAnswerCount | Should -BeGreaterThan 0
        Get-ErrorId { Measure-LoKrData -Data $chats -Model $model -MaxLength 12 -Threshold @{ CutAnswers = 0 } } | Should -Be 'LoKr.DataAnswersCut'
    }

    It 'have the day of a run, and that of today where it begins anew' {
        $model | Start-LoKrTraining -Data $chats -MaxSteps 2 -Seed 1 -RunPath "$TestDrive/run"
        $state = Get-Content -LiteralPath "$TestDrive/run/run.json" -Raw
        $today = (Get-LoKrRun "$TestDrive/run").Day
        $today | Should -BeOfType datetime
        # Another day, on which the template wrote another date.
        Set-Content -LiteralPath "$TestDrive/run/run.json" -Value ($state -replace '"day": "[^"]+"', '"day": "2026-01-31T00:00:00"') -NoNewline
        if ($today.Day -ne 31) {
            Get-ErrorId { $model | Start-LoKrTraining -Data $chats -MaxSteps 2 -Seed 1 -RunPath "$TestDrive/run" } | Should -Be 'LoKr.RunMismatch'
        }

        $model | Start-LoKrTraining -Data $chats -MaxSteps 3 -Seed 1 -RunPath "$TestDrive/run" -Force
        (Get-LoKrRun "$TestDrive/run").Day | Should -BeGreaterOrEqual $today
        Get-Content -LiteralPath "$TestDrive/run/report.md" -Raw | Should -Match 'Day that the chat template writes'
    }
}

Describe 'A job on conversations' {
    It 'is published by its share of exact answers' {
        Set-Content -LiteralPath "$TestDrive/chat.job.psd1" -Value @"
@{
    Base = @{ Path = './chat'; Device = 'cpu' }
    Data = @{ Path = './chats.jsonl'; Validation = './chats.jsonl'; Limits = @{ CutAnswers = 0 } }
    Configuration = @{ R = 4; Alpha = 8; TargetModules = 'all-linear' }
    Training = @{ Epochs = 20; BatchSize = 8; LearningRate = 2e-2; Seed = 1; LossOn = 'Answers'; Metric = 'ExactMatch' }
    Gate = @{ Metric = 'ExactMatch'; MinimumImprovement = 0.5 }
    Registry = @{ Path = './registry' }
}
"@
        (Test-LoKrJob "$TestDrive/chat.job.psd1").Problems | Should -BeNullOrEmpty
        $result = Invoke-LoKrJob "$TestDrive/chat.job.psd1" -InformationAction SilentlyContinue
        $result.State | Should -Be 'Published' -Because $result.Message
        $gate = Get-Content -LiteralPath "$($result.Run)/gate.json" -Raw | ConvertFrom-Json
        $gate.metric, $gate.challengerValue, $gate.championValue | Should -Be 'ExactMatch', 1, 0
        (Get-LoKrRun $result.Run).Day | Should -Not -BeNullOrEmpty
        (Invoke-LoKrJob "$TestDrive/chat.job.psd1" -InformationAction SilentlyContinue).State | Should -Be 'NothingToDo'

        # Another template makes other texts of the same rows.
        Add-Content -LiteralPath "$chat/chat_template.jinja" -Value '{# changed #}'
        (Invoke-LoKrJob "$TestDrive/chat.job.psd1" -InformationAction SilentlyContinue).State | Should -Not -Be 'NothingToDo'
    }
}

Describe 'A conversation with a model' {
    BeforeAll {
        $script:talker = Import-LoKrModel -LiteralPath ([LoKr.Testing.TinyModel]::WriteChat("$TestDrive/talker", '')) -Device cpu
        New-LoKrConfig -R 4 -Alpha 8 -TargetModules all-linear | Add-LoKrAdapter -Model $talker -Seed 1
        $talker | Start-LoKrTraining -Data $chats -Epochs 20 -BatchSize 8 -LearningRate 2e-2 -Seed 1
    }

    AfterAll {
        $talker.Dispose()
    }

    It 'is answered until the end of the turn, and goes on' {
        $first = Invoke-LoKrModel $talker -Message @{ role = 'system'; content = 's' }, 'vpn'
        $first.Answer | Should -BeExactly 'ok'
        $first.IsComplete | Should -BeTrue
        $first.TokenCount | Should -Be 2
        $first.Messages.ToString() | Should -BeExactly 'system: s, user: vpn, assistant: ok'
        $second = $first | Invoke-LoKrModel $talker -Message ([pscustomobject] @{ Role = 'user'; Content = 'wifi' })
        $second.Messages.Role | Should -Be 'system', 'user', 'assistant', 'user', 'assistant'
        $second.Messages[3].Content | Should -BeExactly 'wifi'

        # What a file or a job makes of it goes on too.
        $path = "$TestDrive/first.xml"
        $first | Export-Clixml -LiteralPath $path -Depth 4
        (Import-Clixml -LiteralPath $path | Invoke-LoKrModel $talker -Message 'wifi').Messages.Content | Should -Be $second.Messages.Content
        ($first | ConvertTo-Json -Depth 5 | ConvertFrom-Json | Invoke-LoKrModel $talker -Message 'wifi').Messages.Content | Should -Be $second.Messages.Content
        Get-Display $first | Should -Match 'ok +True +2'
        Get-Display ($first | Format-List) | Should -Match 'user: vpn'
    }

    It 'gives the same answer with the adapter merged' {
        $before = Invoke-LoKrModel $talker -Message 'router' -MaxNewTokens 5
        $talker | Merge-LoKrAdapter
        (Invoke-LoKrModel $talker -Message 'router' -MaxNewTokens 5).Answer | Should -BeExactly $before.Answer
        $talker | Undo-LoKrMerge
    }

    It 'comes in pieces on the information stream with -Stream, and as one object in the end' {
        $answer = Invoke-LoKrModel $talker -Message 'vpn' -Temperature 3 -Seed 5 -MaxNewTokens 12 -Stream -InformationVariable said 6> $null
        @($answer).Count | Should -Be 1
        $pieces = @($said | Where-Object Tags -Contain 'Text' | ForEach-Object { $_.MessageData.Message })
        $pieces.Count | Should -BeGreaterThan 1
        $pieces -join '' | Should -BeExactly $answer.Answer
        (Invoke-LoKrModel $talker -Message 'vpn' -Temperature 3 -Seed 5 -MaxNewTokens 12).Answer | Should -BeExactly $answer.Answer
        $text = 'vpn' | Invoke-LoKrModel $talker -MaxNewTokens 4 -Stream -InformationVariable said 6> $null
        @($said | Where-Object Tags -Contain 'Text' | ForEach-Object { $_.MessageData.Message }) -join '' | Should -BeExactly $text.Completion
    }

    It 'takes what generation_config.json says, and says what it does not do' {
        Set-Content -LiteralPath "$TestDrive/talker/generation_config.json" -Value '{ "do_sample": true, "temperature": 2.0, "max_new_tokens": 3, "num_beams": 4, "eos_token_id": 257 }'
        $model = Import-LoKrModel -LiteralPath "$TestDrive/talker" -Device cpu
        $answer = Invoke-LoKrModel $model -Message 'vpn' -Seed 1 -WarningVariable said -WarningAction SilentlyContinue
        $answer.TokenCount | Should -BeLessOrEqual 3
        $said | Should -Be 'generation_config.json of the model has num_beams = 4, which has no effect.'
        $answers = 1..4 | ForEach-Object { (Invoke-LoKrModel $model -Message 'vpn' -Seed $_ -WarningAction SilentlyContinue).Answer }
        @($answers | Select-Object -Unique).Count | Should -BeGreaterThan 1
        $null = Invoke-LoKrModel $model -Message 'vpn' -Temperature 0 -Seed 1 -MaxNewTokens 1 -WarningVariable said -WarningAction SilentlyContinue
        "$said" | Should -Match '-Seed has no effect at a temperature of 0'
        $model.Dispose()
        Remove-Item -LiteralPath "$TestDrive/talker/generation_config.json"
    }

    It 'needs messages with a role and a content, and a model that has a template' {
        Get-ErrorId { Invoke-LoKrModel $talker -Message @{ content = 'vpn' } } | Should -Be 'LoKr.DataValueInvalid'
        Get-ErrorId { Invoke-LoKrModel $talker -Message 5 } | Should -Be 'LoKr.DataValueInvalid'
        Get-ErrorId { [pscustomobject] @{ Text = 'x' } | Invoke-LoKrModel $talker -Message 'vpn' } | Should -Be 'LoKr.DataValueInvalid'
        $other = Import-LoKrModel -LiteralPath ([LoKr.Testing.TinyModel]::WriteLlama("$TestDrive/plain")) -Device cpu
        Get-ErrorId { Invoke-LoKrModel $other -Message 'vpn' } | Should -Be 'LoKr.ChatTemplateMissing'
        $other.Dispose()
    }
}
