#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What scripts name loads in the default context, every other dependency in one of its own, and nothing native before the first tensor.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # The lines that a fresh pwsh writes after the import.
    function Invoke-Fresh([string] $Script) {
        pwsh -NoProfile -NonInteractive -Command "Import-Module -Name '$manifest'`n$Script" 2>&1 | ForEach-Object { "$_" }
    }
}

Describe 'The module in a fresh process' {
    It 'loads nothing native on import, and the first tensor does' {
        Invoke-Fresh @'
            function Get-NativeCount { @([Diagnostics.Process]::GetCurrentProcess().Modules | Where-Object ModuleName -Match 'torch_cpu|LibTorchSharp|c10').Count }
            "loaded: $($null -ne [LoKr.Core.Runtime.TorchRuntime]::Current)"
            "after import: $(Get-NativeCount)"
            $null = New-LoKrConfig -R 4 -TargetModules query
            "after a configuration: $(Get-NativeCount)"
            $null = [TorchSharp.torch]::zeros(1)
            "after a tensor: $((Get-NativeCount) -gt 0)"
'@ | Should -Be 'loaded: False', 'after import: 0', 'after a configuration: 0', 'after a tensor: True'
    }

    It 'has types that scripts name, in the default context' {
        Invoke-Fresh @'
            foreach ($type in [TorchSharp.torch], [LoKr.Core.Configuration.LoKrConfig], [LoKr.Models.Loading.ModelLoader], [LoKr.PowerShell.Commands.GetLoKrConfigCommand]) {
                "$($type.Name) $([Runtime.Loader.AssemblyLoadContext]::GetLoadContext($type.Assembly).Name)"
            }
'@ | Should -Be 'torch Default', 'LoKrConfig Default', 'ModelLoader Default', 'GetLoKrConfigCommand Default'
    }

    It 'has dependencies in a context of their own that answers nobody else' {
        $lines = Invoke-Fresh @'
            $null = [TorchSharp.torch].Assembly.GetTypes()
            $null = [LoKr.Models.Loading.ModelLoader].Assembly.GetTypes()
            $own = [Runtime.Loader.AssemblyLoadContext]::All | Where-Object Name -EQ 'LoKr dependencies'
            'own: ' + (($own.Assemblies | ForEach-Object { $_.GetName().Name }) -join ' ')
            'default: ' + (([Runtime.Loader.AssemblyLoadContext]::Default.Assemblies | ForEach-Object { $_.GetName().Name } | Where-Object { $_ -match 'Protobuf|SharpZipLib|Skia|Tokenizers|CsvHelper' }) -join ' ')
            try { [Reflection.Assembly]::Load('Google.Protobuf'); 'answered' } catch { 'not answered' }
'@
        $lines[0] | Should -Match 'Google\.Protobuf'
        $lines[0] | Should -Match 'SkiaSharp'
        $lines[1].Trim() | Should -Be 'default:'
        $lines[2] | Should -Be 'not answered'
    }

    It 'reads images with a native library loaded in that context' {
        Invoke-Fresh @'
            $path = [System.IO.Path]::GetTempFileName() + '.png'
            [LoKr.Models.Diffusion.ImageFile]::WritePng($path, [TorchSharp.torch]::zeros(4, 6, 3, [TorchSharp.torch+ScalarType]::Byte))
            "$([LoKr.Models.Diffusion.ImageFile]::ReadSize($path))"
            [System.IO.File]::Delete($path)
            [Runtime.Loader.AssemblyLoadContext]::All | Where-Object { @($_.Assemblies | ForEach-Object { $_.GetName().Name }) -contains 'SkiaSharp.LoKr' } | ForEach-Object Name
'@ | Should -Be '(6, 4)', 'LoKr dependencies'
    }

    It 'uses its own dependencies where another module has loaded older and newer ones' {
        $packages = [LoKr.Core.Runtime.NativeNames]::PackagesFolder
        $others = "$packages/skiasharp/3.119.4/lib/net6.0/SkiaSharp.dll", "$packages/google.protobuf/3.10.1/lib/netstandard2.0/Google.Protobuf.dll"
        if ($others | Where-Object { -not (Test-Path -LiteralPath $_) }) {
            Set-ItResult -Skipped -Because "$others are not restored"
            return
        }

        $script = @"
            Add-Type -Path '$($others[0])', '$($others[1])'
            `$versions = { [AppDomain]::CurrentDomain.GetAssemblies() | ForEach-Object GetName | Where-Object Name -Match '^(SkiaSharp|Google.Protobuf)' | Sort-Object -Property Name | ForEach-Object { "`$(`$_.Name) `$(`$_.Version)" } }
            & `$versions
            Import-Module '$manifest'
            `$path = '$TestDrive/own.png'
            [LoKr.Models.Diffusion.ImageFile]::WritePng(`$path, [TorchSharp.torch]::zeros(4, 6, 3, [TorchSharp.torch+ScalarType]::Byte))
            "`$([LoKr.Models.Diffusion.ImageFile]::ReadSize(`$path))"
            `$log = [TorchSharp.torch+utils+tensorboard]::SummaryWriter('$TestDrive/log', 'run', `$false)
            `$log.add_scalar('loss', [float] 1, 1)
            `$model = Import-LoKrModel '$encoder' -Label $($labels -join ',') -WarningAction SilentlyContinue
            New-LoKrConfig -R 1 -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter `$model | Start-LoKrTraining -Data '$train' -MaxSteps 1
            "`$(`$model.LastTraining.StopReason)"
            & `$versions
"@
        $lines = @(pwsh -NoProfile -NonInteractive -Command $script 2>&1 | ForEach-Object { "$_" })
        $before = 'Google.Protobuf 3.10.1.0', 'SkiaSharp 3.119.0.0'
        $after = 'Google.Protobuf 3.10.1.0', 'Google.Protobuf.LoKr 3.31.1.0', 'SkiaSharp 3.119.0.0', 'SkiaSharp.LoKr 2.88.0.0'
        $lines | Should -Be ($before + '(6, 4)' + 'Completed' + $after)
    }

    It 'loads libtorch at the first call of a script, without copies or noise' {
        Invoke-Fresh @'
            $layer = [TorchSharp.torch+nn]::Linear(3, 4)
            [LoKr.Core.Runtime.TorchRuntime]::Current.IsLoaded
            ($layer | Add-LoKrAdapter -Config (New-LoKrConfig -R 1 -TargetModules all-linear) -PassThru).Adapters.Count
'@ | Should -Be 'True', '1'
        Get-ChildItem -LiteralPath (Split-Path -Path $manifest) -Directory | Where-Object Name -In 'cpu', 'cuda-12.8' | Should -BeNullOrEmpty
    }

    It 'lets threads wait as <Expected> where the environment says "<Given>"' -Skip:(-not $IsLinux) -ForEach @(
        @{ Given = ''; Script = ''; Expected = 'PASSIVE' }
        @{ Given = 'ACTIVE'; Script = ''; Expected = 'ACTIVE' }
        @{ Given = ''; Script = "`$env:OMP_WAIT_POLICY = 'ACTIVE'"; Expected = 'ACTIVE' }
    ) {
        # What GNU's OpenMP library itself says when it is loaded.
        $before = $env:OMP_WAIT_POLICY
        try {
            $env:OMP_WAIT_POLICY = $Given ? $Given : $null
            $env:OMP_DISPLAY_ENV = 'true'
            $lines = Invoke-Fresh "$Script`n`$null = Get-LoKrRuntime"
        }
        finally {
            $env:OMP_WAIT_POLICY = $before
            $env:OMP_DISPLAY_ENV = $null
        }

        "$lines" | Should -Match "OMP_WAIT_POLICY = '$Expected'"
    }

    It 'computes with as many threads as LOKR_THREADS and -Threads say' {
        Invoke-Fresh @"
            `$env:LOKR_THREADS = '3'
            (Get-LoKrRuntime -NoLoad).Threads -eq `$null
            (Get-LoKrRuntime).Threads
            `$model = Import-LoKrModel '$encoder' -Label $($labels -join ',') -Threads 1 -WarningAction SilentlyContinue
            (Get-LoKrRuntime).Threads
            New-LoKrConfig -R 1 -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter `$model | Start-LoKrTraining -Data '$train' -MaxSteps 1 -Threads 2
            (Get-LoKrRuntime).Threads
"@ | Should -Be 'True', '3', '1', '2'
    }

    It 'refuses a LOKR_THREADS of "<_>"' -ForEach '0', '-1', 'two' {
        Invoke-Fresh @"
            `$env:LOKR_THREADS = '$_'
            try { Get-LoKrRuntime } catch { `$_.FullyQualifiedErrorId; `$_.Exception.Message }
            `$null -eq [LoKr.Core.Runtime.TorchRuntime]::Current
"@ | ForEach-Object { $_ -replace ',.*' } | Should -Be 'LoKr.InvalidArgument', "LOKR_THREADS is '$_'", 'True'
    }

    It 'says what is missing where there is no libtorch' {
        $lines = Invoke-Fresh @'
            $env:LOKR_RUNTIME = Join-Path ([System.IO.Path]::GetTempPath()) 'no-such-runtime'
            try { $null = [TorchSharp.torch+nn]::Linear(3, 4) } catch { $_.Exception.InnerException.ErrorId }
            Test-LoKrRuntime
            Get-LoKrRuntime
'@
        $lines[0..1] | Should -Be 'LoKr.RuntimeNotFound', 'False'
        "$($lines[2..($lines.Count - 1)])" | Should -Match 'LOKR_RUNTIME'
        $LASTEXITCODE | Should -Be 1
    }

    It 'loads nothing while other users can change the runtime store' -Skip:$IsWindows {
        $before = $env:LOKR_HOME
        try {
            $env:LOKR_HOME = "$TestDrive/store"
            $null = New-Item -ItemType Directory -Path "$env:LOKR_HOME/runtime"
            chmod 775 "$env:LOKR_HOME"
            Invoke-Fresh @'
                try { Get-LoKrRuntime } catch { ($_.FullyQualifiedErrorId -split ',')[0]; "$($_.CategoryInfo.Category)" }
                try { $null = [TorchSharp.torch+nn]::Linear(3, 4) } catch { $_.Exception.InnerException.ErrorId }
                $null -eq [LoKr.Core.Runtime.TorchRuntime]::Current
'@ | Should -Be 'LoKr.RuntimeStoreUntrusted', 'SecurityError', 'LoKr.RuntimeStoreUntrusted', 'True'
            chmod 755 "$env:LOKR_HOME"
            Invoke-Fresh '(Get-LoKrRuntime).IsLoaded' | Should -Be 'True'
        }
        finally {
            $env:LOKR_HOME = $before
        }
    }

    It 'makes a store that it trusts whatever the umask is' -Skip:(-not $IsLinux) {
        $before = $env:LOKR_HOME
        try {
            $env:LOKR_HOME = "$TestDrive/umask"
            $script = "Import-Module '$manifest'; (Get-LoKrRuntime).IsLoaded"
            foreach ($run in 1, 2) {
                sh -c 'umask 000; exec pwsh -NoProfile -NonInteractive -Command "$1"' sh $script | Should -Be 'True'
            }
        }
        finally {
            $env:LOKR_HOME = $before
        }
    }

    It 'can be removed and imported again' {
        Invoke-Fresh @"
            `$config = New-LoKrConfig -TargetModules all-linear
            Remove-Module -Name LoKr
            Import-Module -Name '$manifest'
            ([TorchSharp.torch+nn]::Linear(3, 4) | Add-LoKrAdapter -Config `$config -PassThru).Adapters.Count
"@ | Should -Be '1'
    }
}

Describe 'The module folder' {
    It 'holds managed code only, and dependencies apart' {
        $folder = Split-Path -Path $manifest
        (Get-ChildItem -LiteralPath $folder -Filter *.dll).Name | Sort-Object | Should -Be 'LoKr.Core.dll', 'LoKr.Models.dll', 'LoKr.PowerShell.dll', 'TorchSharp.dll'
        foreach ($file in Get-ChildItem -LiteralPath "$folder/dependencies" -Filter *.dll) {
            [System.Reflection.AssemblyName]::GetAssemblyName($file.FullName).Name | Should -Not -BeNullOrEmpty
        }

        Get-ChildItem -LiteralPath $folder -Recurse -File | Where-Object { $_.Extension -in '.so', '.dylib' -or $_.Name -like '*torch_cpu*' } | Should -BeNullOrEmpty
    }
}
