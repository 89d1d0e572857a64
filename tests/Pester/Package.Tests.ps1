#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# The module as it is packed, installed in an empty home, and its runtime: tests/clean-install.sh does it, here its lines are compared.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:layout = "$TestDrive/LoKr"
    # What is built and imported here is copied, not built again.
    $output = dotnet msbuild "$root/src/LoKr.PowerShell" "-p:Configuration=$configuration" -verbosity:quiet -nodeReuse:false '-t:CopyModuleFiles' "-p:LoKrLayoutPath=$layout/" 2>&1
    if ($LASTEXITCODE -ne 0) {
        throw "$output"
    }
}

Describe 'The packed module' {
    It 'has the library of TorchSharp for every platform, and that of SkiaSharp where it is needed at once' {
        Get-ChildItem -LiteralPath $layout -Recurse -File | Where-Object { $_.FullName -match '[\\/]native[\\/]' } |
            ForEach-Object { [System.IO.Path]::GetRelativePath($layout, $_.FullName) -replace '\\', '/' } | Sort-Object | Should -Be @(
                'dependencies/runtimes/linux-x64/native/libSkiaSharp.so'
                'dependencies/runtimes/win-x64/native/libSkiaSharp.dll'
                'runtimes/linux-x64/native/libLibTorchSharp.so'
                'runtimes/osx-arm64/native/libLibTorchSharp.dylib'
                'runtimes/win-arm64/native/LibTorchSharp.dll'
                'runtimes/win-x64/native/LibTorchSharp.dll'
            )
    }

    It 'is installed, gets its runtime from a folder, trains, classifies and exports in an empty home' {
        $packages = Join-Path ([LoKr.Core.Runtime.NativeNames]::PackagesFolder) "libtorch-cpu-$([LoKr.Core.Runtime.NativeNames]::RuntimeIdentifier)"
        if (-not $IsLinux -or -not (Get-ChildItem -Path "$packages/*/*.nupkg" -ErrorAction Ignore)) {
            Set-ItResult -Skipped -Because "there is no libtorch package in $packages, or this is not Linux"
            return
        }

        $pwsh = (Test-Path -LiteralPath "$PSHOME/pwsh.dll") ? @('dotnet', "$PSHOME/pwsh.dll") : @("$PSHOME/pwsh")
        $lines = @(bash "$root/tests/clean-install.sh" $layout $packages @pwsh 2>&1 | ForEach-Object { "$_" } | Where-Object { $_ -notmatch '^no network: LoKr.RuntimeDownloadFailed' })
        $LASTEXITCODE | Should -Be 0 -Because ($lines -join "`n")
        $lines[0] | Should -Match '^package: \d+(\.\d)? MB$'
        $lines[1] | Should -Match '^imported: LoKr [\d.]+ from \.local/share/powershell/Modules/LoKr'
        $lines[2] | Should -Match '^before: LoKr\.RuntimeNotFound,.*: Run Install-LoKrRuntime\.'
        $lines[3..8] | Should -Match '.'
        $lines[3] | Should -Match '^installed: \d+\.\d+\.\d+ cpu UserStore$'
        $lines[4..8] | Should -Be 'listed: UserStore', 'trained: True', 'classified: hardware, and hardware by the exported model', 'images: (6, 4)', 'after: 0 runtimes'
    }
}
