@{
    RootModule           = 'LoKr.PowerShell.dll'
    ModuleVersion        = '0.1.0'
    GUID                 = '6c1f3a52-8e0b-4d4c-9f57-2b8a1f6f0d11'
    Author               = 'LoKr for PowerShell contributors'
    Copyright            = '(c) 2026 LoKr for PowerShell contributors. MIT license.'
    Description          = 'Low-rank Kronecker (LoKr) adapters for Hugging Face models: train, merge, inspect and exchange them with PEFT, without ever building the dense matrix.'
    PowerShellVersion    = '7.6'
    CompatiblePSEditions = @('Core')
    FunctionsToExport    = @()
    AliasesToExport      = @()
    VariablesToExport    = @()
    CmdletsToExport      = @(
        'New-LoKrConfig',
        'Get-LoKrConfig',
        'Measure-LoKrConfig',
        'Import-LoKrModel',
        'Export-LoKrModel',
        'Get-LoKrModule',
        'Invoke-LoKrModel',
        'Measure-LoKrModel',
        'Add-LoKrAdapter',
        'Get-LoKrAdapter',
        'New-LoKrAdapter',
        'Resize-LoKrAdapter',
        'Join-LoKrAdapter',
        'Set-LoKrAdapter',
        'Enable-LoKrAdapter',
        'Disable-LoKrAdapter',
        'Remove-LoKrAdapter',
        'Import-LoKrAdapter',
        'Export-LoKrAdapter',
        'Test-LoKrAdapter',
        'Convert-LoKrAdapter',
        'Compare-LoKrAdapter',
        'Merge-LoKrAdapter',
        'Undo-LoKrMerge',
        'Start-LoKrTraining',
        'Get-LoKrRun',
        'Wait-LoKrRun',
        'Stop-LoKrRun',
        'Remove-LoKrRun',
        'Export-LoKrReport',
        'Test-LoKrGate',
        'Measure-LoKrData',
        'Register-LoKrAdapter',
        'Get-LoKrAdapterVersion',
        'Publish-LoKrAdapter',
        'Restore-LoKrAdapter',
        'Unregister-LoKrAdapter',
        'New-LoKrJob',
        'Test-LoKrJob',
        'Invoke-LoKrJob',
        'Export-LoKrSchedule',
        'Submit-LoKrJob',
        'Get-LoKrSubmission',
        'Wait-LoKrSubmission',
        'Stop-LoKrSubmission',
        'Get-LoKrRuntime',
        'Test-LoKrRuntime',
        'Install-LoKrRuntime',
        'Uninstall-LoKrRuntime'
    )
    FormatsToProcess     = @('LoKr.Format.ps1xml')
    TypesToProcess       = @('LoKr.Types.ps1xml')
    PrivateData          = @{
        PSData = @{
            Tags         = @('PSEdition_Core', 'Windows', 'Linux', 'MacOS', 'LoKr', 'LoRA', 'PEFT', 'LyCORIS', 'Transformers', 'Diffusers', 'StableDiffusion', 'Safetensors', 'TorchSharp', 'MachineLearning')
            ProjectUri   = 'https://github.com/lokr-powershell/LoKr'
            LicenseUri   = 'https://github.com/lokr-powershell/LoKr/blob/main/LICENSE'
            IconUri      = 'https://github.com/lokr-powershell/LoKr/raw/main/docs/images/icon.png'
            ReleaseNotes = '0.1.0, the first release: LoKr adapters trained, merged, inspected, converted and exchanged with PEFT, LyCORIS, kohya,
ComfyUI, diffusers and OneTrainer, on text classifiers, language models and Stable Diffusion, without Python.
Every change: https://github.com/lokr-powershell/LoKr/blob/main/CHANGELOG.md'
        }
    }
}
