#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.5.0' }

# What people see, at the prompt and after a job.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'Views' {
    BeforeAll {
        $script:model = Get-AdaptedModel
        $null = $model | Start-LoKrTraining -Data $train -ValidationData $eval -MaxSteps 3 -Seed 1
        $null = $model | Merge-LoKrAdapter
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
        @{ Name = 'the runtime'; Script = { Get-LoKrRuntime }; Shows = 'LibtorchVersion +: \d' }
    ) {
        Get-Display (& $Script) | Should -Match $Shows
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

    It 'fit a terminal of 80 columns' {
        foreach ($line in (Get-Display $model 80) -split '\r?\n') {
            $line.TrimEnd().Length | Should -BeLessOrEqual 80
        }

        (Get-Display $model 80) -split '\r?\n' | Where-Object { $_ -match '^Name' } | Should -Match 'Adapters'
    }
}
