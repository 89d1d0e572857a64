#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What people see, at the prompt and after a job.

BeforeDiscovery {
    . "$PSScriptRoot/Common.ps1"

    # What the cmdlets say that they write, and what these objects hold.
    $script:types = @(
        (Get-Command -Module LoKr).OutputType.Type | Where-Object { $_ -and $_.Namespace -like 'LoKr.*' } | ForEach-Object FullName
        'LoKr.Core.Model.LoKrAdapter', 'LoKr.Core.Model.ParameterCount', 'LoKr.Core.Model.LoKrMergeResult', 'LoKr.Core.Layouts.LoKrAdapterFinding', 'LoKr.Core.Model.LoKrTrainingResult'
    ) | Sort-Object -Unique
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe '<_>' -ForEach $types {
    BeforeAll {
        [xml] $format = Get-Content -LiteralPath (Join-Path (Split-Path -Path $manifest) 'LoKr.Format.ps1xml') -Raw
        [xml] $display = Get-Content -LiteralPath (Join-Path (Split-Path -Path $manifest) 'LoKr.Types.ps1xml') -Raw
        $script:names = $_, "Deserialized.$_"
        $script:views = @($format.SelectNodes('//View') | Where-Object { $_.SelectNodes('ViewSelectedBy/TypeName').InnerText -contains $names[0] })
        $script:sets = $display
        $script:allViews = $format.SelectNodes('//View')
    }

    It 'has a table and a list for itself and its deserialized twin' {
        foreach ($name in $names) {
            $own = @($allViews | Where-Object { $_.SelectNodes('ViewSelectedBy/TypeName').InnerText -contains $name })
            @($own | Where-Object { $_.SelectSingleNode('TableControl') }).Count | Should -Be 1 -Because $name
            @($own | Where-Object { $_.SelectSingleNode('ListControl') }).Count | Should -Be 1 -Because $name
        }
    }

    It 'has the properties that its views show' {
        $properties = ($names[0] -as [type]).GetProperties().Name
        foreach ($name in $views.SelectNodes('.//PropertyName').InnerText) {
            $properties | Should -Contain $name
        }
    }

    It 'has a default display property set' {
        foreach ($name in $names) {
            $type = @($sets.SelectNodes('//Type') | Where-Object { $_.SelectSingleNode('Name').InnerText -eq $name })
            $type.Count | Should -Be 1 -Because $name
            @($type.SelectNodes('.//PropertySet/Name').InnerText | Where-Object { $_ -eq 'DefaultDisplayPropertySet' }).Count | Should -Be 1 -Because $name
        }
    }
}

Describe 'Views' {
    BeforeAll {
        $script:model = Get-AdaptedModel
        $model | Start-LoKrTraining -Data $train -ValidationData $eval -MaxSteps 3 -Seed 1
        $model | Merge-LoKrAdapter
    }

    AfterAll {
        $model.Dispose()
    }

    It 'show <Name>' -ForEach @(
        @{ Name = 'a model'; Script = { $model }; Shows = 'BertForSequenceClassification float32 +cpu.*default \(merged\)' }
        @{ Name = 'a configuration'; Script = { New-LoKrConfig -WeightDecompose -RankPattern @{ query = 4 } }; Shows = '(?s)RankPattern +: query = 4.*Options +: WeightDecompose' }
        @{ Name = 'adapters'; Script = { $model.Adapters }; Shows = 'default +4 +8 +2 ' }
        @{ Name = 'modules'; Script = { $model | Get-LoKrModule -Adapted }; Shows = 'self\.query +Linear +128\W128 +16,512 default' }
        @{ Name = 'a training'; Script = { $model.LastTraining }; Shows = '(?s)StopReason +: Completed.*Steps +: 3.*AccuracyAfter +: 0' }
        @{ Name = 'its steps'; Script = { $model.LastTraining.History }; Shows = 'GradNorm' }
        @{ Name = 'a merge'; Script = { $model.LastMerge }; Shows = 'default +2 +1 ' }
        @{ Name = 'counts'; Script = { $model.CountParameters() }; Shows = 'Trainable +Total +Percent' }
        @{ Name = 'an evaluation'; Script = { $model | Measure-LoKrModel -Data $eval }; Shows = '120 +120 +1\.\d{4}' }
        @{ Name = 'classes'; Script = { 'vpn' | Invoke-LoKrModel -Model $model }; Shows = 'Label +Score Text' }
        @{ Name = 'states of adapters'; Script = { $model | Get-LoKrAdapter }; Shows = 'default' }
        @{ Name = 'states of layers'; Script = { $model | Get-LoKrAdapter -ByLayer }; Shows = 'lokr\.Linear' }
        @{ Name = 'the state of a model'; Script = { $model | Get-LoKrAdapter -Summary }; Shows = 'BertForSequenceClassification' }
        @{ Name = 'the cost of a configuration'; Script = { New-LoKrConfig -R 4 -TargetModules query | Measure-LoKrConfig $model }; Shows = '(?s)# +R.*1 +4 +8 +-1 query +2 +[\d,.]+ +[\d.,]+ +[\d.,]+ KB' }
        @{ Name = 'the cost of modules'; Script = { New-LoKrConfig -R 4 -TargetModules query | Measure-LoKrConfig $model -ByModule }; Shows = 'self\.query +Layer +4 +[\d,.]+ +[\d.,]+ KB +[\d.,]+ K w1 \d+' }
        @{ Name = 'values of layers'; Script = { $model | Get-LoKrAdapter -ByLayer -Values }; Shows = 'query +4 +[\d.,]+ +[\d.,]+ % +' }
        @{ Name = 'a comparison'; Script = { $model | Compare-LoKrAdapter default default }; Shows = 'default +default +\d+ 0 / 0 +1[.,]0000 +0 %' }
        @{ Name = 'a comparison of layers'; Script = { $model | Compare-LoKrAdapter default default -ByLayer }; Shows = 'query +Both +1[.,]0000 +0 %' }
        @{ Name = 'settings that differ'; Script = { [LoKr.Core.Layouts.LoKrSettingDifference]::new('R', '4', '8') }; Shows = 'R +4 +8' }
        @{ Name = 'answers compared'; Script = { [LoKr.Core.Training.LoKrAnswerComparison] @{ Reference = 'a'; Difference = 'b'; RowCount = 9; ReferenceLoss = 0.5; DifferenceLoss = 0.25; ReferenceAccuracy = 0.5; DifferenceAccuracy = 0.75; SameCount = 5; CorrectedCount = 3; BrokenCount = 0 } }; Shows = 'a +b +9 0[.,]5000 → 0[.,]2500 +0[.,]5000 → 0[.,]7500 +5 +3 +0' }
        @{ Name = 'the runtime'; Script = { Get-LoKrRuntime }; Shows = '(?s)LibtorchVersion +: \d.*Threads +: \d' }
    ) {
        $text = Get-Display (& $Script)
        $text | Should -Match $Shows
        foreach ($shown in $text, (Get-Display (& $Script | Format-List))) {
            $shown | Should -Not -Match '#ERR'
            $shown | Should -Not -MatchExactly '(System|LoKr|TorchSharp)\.[A-Z]|`\d\[|<>'
        }
    }

    It 'show the probabilities of a class, the highest first' {
        $text = Get-Display ('vpn' | Invoke-LoKrModel -Model $model | Format-List) 300
        $scores = [regex]::Matches([regex]::Match($text, 'Scores : (.+)').Groups[1].Value, '0[.,]\d+').Value
        $scores.Count | Should -Be 6
        $scores | Should -Be ($scores | Sort-Object -Descending)
    }

    It 'are the same after Export-Clixml' {
        $objects = @($model; $model.Adapters[0]; New-LoKrConfig -TargetModules query -RankPattern @{ query = 4 }; $model.LastTraining; $model.LastMerge
            $model.LastTraining.History[0]; $model.CountParameters(); $model | Get-LoKrModule -Name *.query; Get-LoKrRuntime; 'vpn' | Invoke-LoKrModel -Model $model)
        $objects | Export-Clixml -LiteralPath "$TestDrive/objects.xml"
        $copies = @(Import-Clixml -LiteralPath "$TestDrive/objects.xml")
        $copies.Count | Should -Be $objects.Count
        for ($i = 0; $i -lt $objects.Count; $i++) {
            $copies[$i].PSTypeNames[0] | Should -Be "Deserialized.$($objects[$i].PSTypeNames[0])"
            Get-Display $copies[$i] | Should -Be (Get-Display $objects[$i])
            Get-Display ($copies[$i] | Format-List) | Should -Be (Get-Display ($objects[$i] | Format-List))
        }
    }

    It 'need plain figures only' {
        $copy = [System.Management.Automation.PSSerializer]::Deserialize([System.Management.Automation.PSSerializer]::Serialize($model))
        $copy.PSTypeNames[0] | Should -Be 'Deserialized.LoKr.Core.Model.LoKrModel'
        $copy.Name | Should -Be 'BertForSequenceClassification'
        $copy.PSObject.Properties['Tokenizer'] | Should -BeNullOrEmpty
        $copy.ParameterCount | Should -BeGreaterThan 0
        [LoKr.PowerShell.Formatting.ViewText]::List($copy.Adapters) | Should -Be 'default'
    }

    It 'fit a terminal of 80 columns: <_>' -ForEach 'ForEach-Object { $_.LastTraining.History }', 'Get-LoKrModule', 'Get-LoKrModule -Adapted', 'Get-LoKrAdapter', 'Get-LoKrAdapter -ByLayer -Values', 'Compare-LoKrAdapter default default', 'Compare-LoKrAdapter default default -ByLayer' {
        $rows = & ([scriptblock]::Create("`$model | $_"))
        $lines = (Get-Display $rows 80) -split '\r?\n'
        ($lines | Measure-Object -Property Length -Maximum).Maximum | Should -BeLessOrEqual 80

        # The header takes one line, as it does where every column has room.
        $rule = @($lines | Where-Object { $_ -match '^[- ]+$' -and $_ -match '-' })
        $rule.Count | Should -Be 1
        $lines.IndexOf($rule[0]) | Should -Be 2
    }

    It 'color states for the eye only' {
        $PSStyle.OutputRendering = 'Ansi'
        $colored = $model | Get-LoKrAdapter | Out-String -Width 120
        $colored | Should -Match "$([char] 27)\[32mTrue"
        $PSStyle.OutputRendering = 'Host'
        $model | Get-LoKrAdapter | Out-File -LiteralPath "$TestDrive/out.txt"
        Get-Content -LiteralPath "$TestDrive/out.txt" -Raw | Should -Not -Match "$([char] 27)"
        $PSStyle.OutputRendering = 'PlainText'
        $model | Get-LoKrAdapter | Out-String -Width 120 | Should -Not -Match "$([char] 27)"
    }

    It 'fit a terminal of 80 columns' {
        foreach ($line in (Get-Display $model 80) -split '\r?\n') {
            $line.TrimEnd().Length | Should -BeLessOrEqual 80
        }

        (Get-Display $model 80) -split '\r?\n' | Where-Object { $_ -match '^Name' } | Should -Match 'Adapters'
    }
}

Describe 'An object' {
    BeforeAll {
        $script:model = Get-AdaptedTinyModel
        $model | Start-LoKrTraining -Data $rows -ValidationData $rowsToMeasure -MaxSteps 2 -Seed 1 -RunPath "$TestDrive/run" -EvaluateBefore
        $model | Export-LoKrAdapter -Destination "$TestDrive/adapter"
        $model | Merge-LoKrAdapter | Undo-LoKrMerge
        New-LoKrConfig -R 1 -TargetModules key | Add-LoKrAdapter $model -Name other -Seed 2 -WarningAction SilentlyContinue
        $script:sd = Import-LoKrModel -LiteralPath ([LoKr.Testing.TinyPipeline]::Write("$TestDrive/sd")) -WarningAction SilentlyContinue
        New-LoKrConfig -R 1 -TargetModules to_q, q_proj | Add-LoKrAdapter $sd -Seed 1 -WarningAction SilentlyContinue
        $script:sentences = Import-LoKrModel -LiteralPath $tiny -Pooling Mean
        Register-LoKrAdapter tickets "$TestDrive/run" -Registry "$TestDrive/registry" | Publish-LoKrAdapter

        # Objects of every type, as the cmdlets write them.
        $script:samples = @{
            'LoKr.Core.Configuration.LoKrConfig'            = {
                New-LoKrConfig -R 4 -TargetModules query, key -ExcludeModules a, b -LayersToTransform 0, 1 -LayersPattern layer -RankPattern ([ordered] @{ query = 2; key = 3 }) -AlphaPattern @{ query = 2.5 } -ModulesToSave classifier
            }
            'LoKr.Core.Conversion.LoraConversionResult'     = { Convert-LoKrAdapter "$TestDrive/adapter" "$TestDrive/lora" -LoraRank 2 -Force -WarningAction SilentlyContinue }
            'LoKr.Core.Conversion.LoKrFitResult'            = { Resize-LoKrAdapter "$TestDrive/adapter" "$TestDrive/smaller" -R 1 -Force -WarningAction SilentlyContinue }
            'LoKr.Core.Runs.LoKrDataSummary'                = { Measure-LoKrData $rows -ValidationData $rowsToMeasure -WarningAction SilentlyContinue }
            'LoKr.Core.Runs.LoKrGateResult'                 = { $model | Test-LoKrGate -Challenger "$TestDrive/adapter" -Data $rowsToMeasure -WarningAction SilentlyContinue }
            'LoKr.Core.Gguf.LoKrTensorInfo'                 = { Get-LoKrModule -Path ([LoKr.Testing.TinyGguf]::Write("$TestDrive/llama.gguf")) }
            'LoKr.Core.Inference.LoKrClassification'        = { 'vpn' | Invoke-LoKrModel $model }
            'LoKr.Core.Inference.LoKrEmbedding'             = { Invoke-LoKrModel $sentences 'vpn' }
            'LoKr.Core.Inference.LoKrSearchResult'          = { Invoke-LoKrModel $sentences -Query 'vpn' -Corpus 'wifi', 'vpn' }
            'LoKr.Core.Inference.LoKrCompletion'            = { [LoKr.Core.Inference.LoKrCompletion] @{ Prompt = 'a'; Completion = 'b'; PromptTokenCount = 1; TokenCount = 1; Elapsed = '0:00:01' } }
            'LoKr.Core.Inference.LoKrEntity'                = { [LoKr.Core.Inference.LoKrEntity] @{ Text = 'web1'; Type = 'HOST'; Start = 3; End = 7; Score = 0.9; Source = 'on web1' } }
            'LoKr.Core.Layouts.LoKrAdapterCheck'            = { Test-LoKrAdapter "$TestDrive/adapter" }
            'LoKr.Core.Layouts.LoKrAdapterComparison'       = { Compare-LoKrAdapter "$TestDrive/adapter" other -Model $model }
            'LoKr.Core.Layouts.LoKrAdapterFinding'          = { [LoKr.Core.Layouts.LoKrAdapterFinding]::new('Warning', 'LoKr.X', 'a', 'b') }
            'LoKr.Core.Layouts.LoKrAdapterInfo'             = { Get-LoKrAdapter "$TestDrive/adapter" }
            'LoKr.Core.Layouts.LoKrLayerComparison'         = { Compare-LoKrAdapter "$TestDrive/adapter" other -Model $model -ByLayer }
            'LoKr.Core.Layouts.LoKrLayerValues'             = { $model | Get-LoKrAdapter -ByLayer -Values }
            'LoKr.Core.Layouts.LoKrSettingDifference'       = { Compare-LoKrAdapter "$TestDrive/adapter" other -Model $model -Setting }
            'LoKr.Core.Model.LoKrAdapter'                   = { $model.Adapters }
            'LoKr.Core.Model.LoKrAdapterStatus'             = { $model | Get-LoKrAdapter }
            'LoKr.Core.Inference.LoKrConversation'          = {
                [LoKr.Core.Inference.LoKrConversation] @{ Messages = [LoKr.Core.Inference.LoKrMessage[]] (@{ Role = 'user'; Content = 'a' }, @{ Role = 'assistant'; Content = 'b' }); Answer = 'b'; IsComplete = $true; PromptTokenCount = 3; TokenCount = 1; Elapsed = [timespan]::Zero }
            }
            'LoKr.Core.Model.LoKrConfusion'                 = { $model | Measure-LoKrModel -Data $rowsToMeasure -Confusion }
            'LoKr.Core.Model.LoKrEvaluation'                = { $model | Measure-LoKrModel -Data $rowsToMeasure }
            'LoKr.Core.Model.LoKrLabelEvaluation'           = { $model | Measure-LoKrModel -Data $rowsToMeasure -ByLabel }
            'LoKr.Core.Model.LoKrLayerStatus'               = { $model | Get-LoKrAdapter -ByLayer }
            'LoKr.Core.Model.LoKrMergeResult'               = { $model.LastMerge }
            'LoKr.Core.Model.LoKrModel'                     = { $model }
            'LoKr.Core.Model.LoKrModelStatus'               = { $model | Get-LoKrAdapter -Summary }
            'LoKr.Core.Model.LoKrModuleInfo'                = { $model | Get-LoKrModule -Adapted }
            'LoKr.Core.Model.LoKrTrainingResult'            = { $model.LastTraining }
            'LoKr.Core.Model.LoKrTrainingStep'              = { $model.LastTraining.History }
            'LoKr.Core.Model.ParameterCount'                = { $model.CountParameters() }
            'LoKr.Core.Runs.LoKrAdapterVersion'             = { Get-LoKrAdapterVersion tickets -Registry "$TestDrive/registry" }
            'LoKr.Core.Runs.LoKrJobCheck'                   = { $null = New-LoKrJob "$TestDrive/tickets.job.psd1" -BasePath $tiny -Data $rows -Force; Test-LoKrJob "$TestDrive/tickets.job.psd1" }
            'LoKr.Core.Runs.LoKrJobResult'                  = { [LoKr.Core.Runs.LoKrJobResult] @{ Job = 'a'; Path = 'b'; State = [LoKr.Core.Runs.LoKrJobState] 0; ExitCode = 0; Message = 'c'; Started = [datetime]::UtcNow; NewLabels = [string[]] ('d', 'e') } }
            'LoKr.Core.Runs.LoKrRun'                        = { Get-LoKrRun "$TestDrive/run" }
            'LoKr.Core.Runs.LoKrSubmission'                 = {
                [LoKr.Core.Runs.LoKrSubmission] @{ Path = '/a/submission'; Scheduler = 'Slurm'; Attempt = 1; Created = [datetime]::UtcNow; JobCount = 1; SubmittedCount = 1; PendingCount = 0; RunningCount = 0; CompletedCount = 1; FailedCount = 0; StoppedCount = 0; ContinuableCount = 0 }
            }
            'LoKr.Core.Runs.LoKrSubmissionJob'              = {
                [LoKr.Core.Runs.LoKrSubmissionJob] @{ Submission = '/a/submission'; Index = 1; Job = 'b'; Path = '/a/b.job.psd1'; State = 'Completed'; Reason = 'Changed'; Changes = [LoKr.Core.Runs.SubmissionChange[]] ('JobFile', 'Data'); Scheduler = 'Slurm'; LogPath = '/a/log.txt' }
            }
            'LoKr.Core.Runtime.LoKrRuntimeInfo'             = { Get-LoKrRuntime }
            'LoKr.Core.Training.LoKrAnswerComparison'       = { (Compare-LoKrAdapter default other -Model $model -Data $rowsToMeasure).Where({ $_ -is [LoKr.Core.Training.LoKrAnswerComparison] }) }
            'LoKr.Core.Training.LoKrAnswerDifference'       = { Compare-LoKrAdapter "$TestDrive/adapter" other -Model $model -Data $rowsToMeasure -ByRow | Select-Object -First 3 }
            'LoKr.Core.Training.LoKrConfigCost'             = { New-LoKrConfig -TargetModules query | Measure-LoKrConfig $model }
            'LoKr.Core.Training.LoKrModuleCost'             = { New-LoKrConfig -TargetModules query | Measure-LoKrConfig $model -ByModule }
            'LoKr.Models.Diffusion.LoKrPicture'             = { Invoke-LoKrModel $sd 'a red rack' -Seed 1 -Steps 1 -Destination "$TestDrive/image.png" -Force -WarningAction SilentlyContinue }
            'LoKr.Models.Diffusion.StableDiffusionPipeline' = { $sd }
        }

        # Live objects with tensors in them, which ConvertTo-Json takes apart: what Get-LoKrAdapter writes is their record.
        $script:live = 'LoKr.Core.Model.LoKrModel', 'LoKr.Core.Model.LoKrAdapter', 'LoKr.Models.Diffusion.StableDiffusionPipeline'
        $script:typeName = '(System|LoKr\.(Core|Models)|TorchSharp)\.[A-Z]|`\d\[|<>|\w+ \{'
    }

    AfterAll {
        $model.Dispose()
        $sd.Dispose()
        $sentences.Dispose()
    }

    It 'shows no type names in CSV, JSON and text: <_>' -ForEach $types {
        $objects = @(& $samples[$_])
        $objects.Count | Should -BeGreaterThan 0
        $objects[0].PSTypeNames[0] | Should -Be $_
        # A vector is for programs: a cell has no place for it.
        $objects | Select-Object -ExcludeProperty Vector | ConvertTo-Csv | Should -Not -MatchExactly $typeName
        if ($_ -notin $live) {
            $json = $objects | ConvertTo-Json -Depth 4 -WarningVariable warnings -WarningAction SilentlyContinue
            $warnings | Should -BeNullOrEmpty
            $json | Should -Not -MatchExactly '(System|LoKr\.(Core|Models)|TorchSharp)\.[A-Z]|`\d\[|<>'
            @($json | ConvertFrom-Json).Count | Should -Be $objects.Count
        }

        foreach ($text in (Get-Display $objects), (Get-Display ($objects | Format-List)), (Get-Display ($objects | Format-Table *)), (Get-Display ($objects | Format-List *) 300)) {
            $text | Should -Not -MatchExactly '(System|LoKr\.(Core|Models)|TorchSharp)\.[A-Z]|`\d\[|<>|#ERR'
        }
    }
}

Describe 'A cell' {
    It 'is written for people: <Expected>' -ForEach @(
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Shape([long[]] (384, 1536)) }; Expected = '384×1536' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Shape($null) }; Expected = '' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::List(@('a', 'b')) }; Expected = 'a, b' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::List('abc') }; Expected = 'abc' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Steps(420, 2000) }; Expected = '420/2000' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Steps(12345, 12345) }; Expected = '12345/12345' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Steps(1042, 1000000) }; Expected = '1042/1M' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Steps(234567, 345678) }; Expected = '234567/345K' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Steps(1239999, 2550000) }; Expected = '1.23M/2.55M' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Steps($null, $null) }; Expected = '' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Number($null, 2) }; Expected = '' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Adapters(@('a', 'b', 'c'), @('a', 'b'), @('b')) }; Expected = 'a, b (merged), c (off)' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Pairs([ordered] @{ x = 2.5; a = 4.0 }) }; Expected = 'x = 2.5, a = 4' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Pairs(@{ default = [LoKr.Core.Model.TriState]::Irregular }) }; Expected = 'default = Irregular' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Scores(@{ a = 0.1; b = 0.9 }) }; Expected = 'b 0.9000, a 0.1000' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Duration([timespan]::FromSeconds(65.34)) }; Expected = '0:01:05.3' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Duration($null) }; Expected = '' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Size(512) }; Expected = '512 B' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Size(1840000000) }; Expected = '1.84 GB' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Operations(12345678) }; Expected = '12.3 M' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Percent(0.0123) }; Expected = '1.23 %' }
        @{ Cell = { [LoKr.PowerShell.Formatting.ViewText]::Fit('a.name.that.is.longer.than.the.room.for.it.self.query', $null, 50) }; Expected = '…an.the.room.for.it.self.query' }
    ) {
        & $Cell | Should -Be $Expected
    }
}
