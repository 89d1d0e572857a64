#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# Installing, listing and removing runtimes, as far as it needs no large package; Package.Tests.ps1 installs a real one.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:homeBefore = $env:LOKR_HOME
    $env:LOKR_HOME = "$TestDrive/home"
    $script:empty = (New-Item -ItemType Directory -Path "$TestDrive/empty").FullName
}

AfterAll {
    $env:LOKR_HOME = $homeBefore
}

Describe 'Install-LoKrRuntime' {
    It 'says what it would do and does nothing' {
        Install-LoKrRuntime -Source $empty -WhatIf | Should -BeNullOrEmpty
        $env:LOKR_HOME | Should -Not -Exist
    }

    It 'names the package that is missing and says where to put it' {
        $failure = Get-Failure { Install-LoKrRuntime -Source $empty }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.RuntimePackageNotFound,*'
        $failure.CategoryInfo.Category | Should -Be 'ObjectNotFound'
        "$failure" | Should -Match 'libtorch-cpu-'
        $failure.ErrorDetails.RecommendedAction | Should -Match '-Source'
    }

    It 'refuses a source that is nothing known, by name' {
        (Get-Failure { Install-LoKrRuntime -Source no-such-source }).FullyQualifiedErrorId | Should -BeLike 'LoKr.RuntimePackageNotFound,*'
    }

    It 'refuses an unpacked libtorch of another version and says how to get the right one' {
        $lib = New-Item -ItemType Directory -Path "$TestDrive/libtorch/lib"
        Set-Content -LiteralPath "$lib/$([LoKr.Core.Runtime.NativeNames]::FileName('torch_cpu'))" -Value 'library'
        Set-Content -LiteralPath "$TestDrive/libtorch/build-version" -Value '1.2.3'
        $failure = Get-Failure { Install-LoKrRuntime -Source "$TestDrive/libtorch" }
        $failure.FullyQualifiedErrorId | Should -BeLike 'LoKr.RuntimeVersionMismatch,*'
        $failure.ErrorDetails.RecommendedAction | Should -Match 'pip install torch==\d+\.\d+\.\d+ --index-url https://\S+/cpu'
    }

    It 'refuses a feed that cannot be reached' {
        (Get-Failure { Install-LoKrRuntime -Source http://127.0.0.1:9/index.json }).FullyQualifiedErrorId | Should -BeLike 'LoKr.RuntimeDownloadFailed,*'
    }
}

Describe 'Get-LoKrRuntime -ListAvailable and Uninstall-LoKrRuntime' {
    It 'lists the runtime in use with the others' {
        (Get-LoKrRuntime -ListAvailable).Path | Should -Contain (Get-LoKrRuntime).Path
    }

    It 'removes nothing that was not installed, and goes on with the rest' {
        $found = @(Get-LoKrRuntime -ListAvailable | Where-Object Source -NotIn UserStore, AllUsersStore)
        $found | Uninstall-LoKrRuntime -ErrorAction SilentlyContinue -ErrorVariable failures
        @($failures).Count | Should -Be $found.Count
        $failures.FullyQualifiedErrorId | Should -BeLike 'LoKr.RuntimeNotFound,*'
        $found.Path | Should -Exist
    }

    It 'says so where nothing is installed' {
        Get-ErrorId { Uninstall-LoKrRuntime } | Should -Be 'LoKr.RuntimeNotFound'
        Get-ErrorId { Uninstall-LoKrRuntime -Flavor Cuda } | Should -Be 'LoKr.RuntimeNotFound'
    }
}
