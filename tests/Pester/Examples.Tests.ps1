#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.5.0' }

# The scripts of examples, as somebody at a prompt runs them.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe 'Examples' {
    It 'Quickstart trains, exports and gets the same answers back' {
        $lines = @(& (Join-Path $root 'examples/Quickstart.ps1') -Epochs 2)
        $lines[-1] | Should -Match 'same answers'
    }

    It 'Train-TextClassifier compares the head alone with LoKr' {
        $result = & (Join-Path $root 'examples/Train-TextClassifier.ps1') -ModelPath $encoder -Data $train -ValidationData $eval -MaxSteps 4 -Destination "$TestDrive/classifier" 6> $null
        $result | Should -Not -BeNullOrEmpty
        "$TestDrive/classifier/model.safetensors" | Should -Exist
    }

    It '<Name> says what it needs where the module is missing' -ForEach @(
        Get-ChildItem -Path "$PSScriptRoot/../../examples/*.ps1" | ForEach-Object { @{ Name = $_.Name; File = $_.FullName } }
    ) {
        $text = pwsh -NoProfile -NonInteractive -File $File 2>&1 | Out-String
        $LASTEXITCODE | Should -Not -Be 0
        $text | Should -Match 'LoKr'
    }
}
