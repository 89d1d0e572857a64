#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What commands show while they work.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:model = Get-AdaptedTinyModel
    $script:many = [LoKr.Testing.TinyData]::WriteTickets("$TestDrive/many.jsonl", 300, 3)

    # The records of a script in a runspace of its own.
    function Get-Progress([string] $Script) {
        $shell = [powershell]::Create([System.Management.Automation.RunspaceMode]::NewRunspace)
        $variables = $shell.Runspace.SessionStateProxy
        $variables.SetVariable('manifest', $manifest)
        $variables.SetVariable('model', $model)
        $variables.SetVariable('many', $many)
        $variables.SetVariable('tiny', $tiny)
        $null = $shell.AddScript("Import-Module -Name `$manifest`n$Script").Invoke()
        $shell.Streams.Error | Should -BeNullOrEmpty
        $shell.Streams.Progress
        $shell.Dispose()
    }
}

AfterAll {
    $model.Dispose()
}

Describe 'Progress' {
    It 'is shown and taken away: <Activity>' -ForEach @(
        @{ Activity = 'Importing bert'; Script = 'Import-LoKrModel -LiteralPath $tiny -Label a, b, c -WarningAction SilentlyContinue'; Status = '% of the weights$' }
        @{ Activity = 'Reading data'; Script = '$model | Measure-LoKrModel -Data $many'; Status = '^many\.jsonl, 256 rows$' }
        @{ Activity = 'Tokenizing'; Script = '$model | Measure-LoKrModel -Data $many'; Status = '% of 300 rows$' }
        @{ Activity = 'Measuring BertForSequenceClassification'; Script = '$model | Measure-LoKrModel -Data $many'; Status = '% of 300 rows$' }
        @{ Activity = 'Running BertForSequenceClassification'; Script = "'vpn', 'card' | Invoke-LoKrModel `$model"; Status = '^1 texts$' }
        @{ Activity = 'Training BertForSequenceClassification'; Script = '$model | Start-LoKrTraining -Data $many -MaxSteps 1'; Status = '^the first step$' }
        @{ Activity = 'Evaluating'; Script = '$model | Start-LoKrTraining -Data $many -ValidationData $many -MaxSteps 1'; Status = '%$' }
    ) {
        $records = @(Get-Progress $Script | Where-Object Activity -EQ $Activity)
        $records.Count | Should -BeGreaterThan 1
        $records[0].StatusDescription | Should -Match $Status
        $records[-1].RecordType | Should -Be 'Completed'
        @($records.ActivityId | Select-Object -Unique).Count | Should -Be 1
    }

    It 'is taken away where an error ends the command: <Activity>' -ForEach @(
        @{ Activity = 'Running BertForSequenceClassification'; Script = "'vpn', @{ none = 1 }, 'card' | Invoke-LoKrModel `$model -ErrorAction Stop" }
        @{ Activity = 'Reading jobs'; Script = '$null = New-LoKrJob "$drive/one.psd1" -Force; "$drive/one.psd1", "$drive/none.psd1" | Submit-LoKrJob -Destination "$drive/submission" -ErrorAction Stop' }
    ) {
        $records = @(Get-Progress "try { $($Script.Replace('$drive', $TestDrive)) } catch { }" | Where-Object Activity -EQ $Activity)
        $records.Count | Should -BeGreaterThan 1
        $records[-1].RecordType | Should -Be 'Completed'
    }

    It 'of an evaluation is below that of its training' {
        $records = Get-Progress '$model | Start-LoKrTraining -Data $many -ValidationData $many -MaxSteps 1'
        $training = @($records | Where-Object Activity -Like 'Training*')[0]
        $training.ParentActivityId | Should -Be -1
        @($records | Where-Object Activity -EQ 'Evaluating').ParentActivityId | Select-Object -Unique | Should -Be $training.ActivityId
    }

    It 'of two commands has two ids' {
        $records = Get-Progress '1, 2 | ForEach-Object { $model | Start-LoKrTraining -Data $many -MaxSteps 1 }'
        @(($records | Where-Object Activity -Like 'Training*').ActivityId | Select-Object -Unique).Count | Should -Be 2
    }
}
