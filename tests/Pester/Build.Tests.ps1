#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# build.ps1 as somebody at a shell calls it. A dotnet that writes down its arguments stands before the real one: the solution is
# not built again below the tests that run from it.

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:dotnet = (Get-Command -Name dotnet -CommandType Application)[0].Source
    $script:module = Split-Path -Path $manifest -Parent

    # Instead of the build there is the module that is tested; `status` is how the recorded commands end.
    function Write-Dotnet([int] $Status = 0) {
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/bin$(New-Guid)").FullName
        $script:calls = "$folder/calls"
        Set-Content -LiteralPath "$folder/dotnet" -Value @"
#!/bin/sh
echo "`$@" >> '$calls'
case "`$*" in
    *-t:LayoutModule*) for word in "`$@"; do case "`$word" in -p:LoKrLayoutPath=*) mkdir -p "`${word#*=}" && cp -r '$module/.' "`${word#*=}";; esac; done ;;
    build*|test*) exit $Status ;;
    *) exec '$dotnet' "`$@" ;;
esac
"@
        chmod +x "$folder/dotnet"
        $folder
    }

    # build.ps1 in a pwsh of its own.
    function Invoke-Build([string[]] $Argument, [int] $Status = 0) {
        $path = $env:PATH
        try {
            $env:PATH = "$(Write-Dotnet $Status)$([System.IO.Path]::PathSeparator)$path"
            $text = pwsh -NoProfile -NonInteractive @Argument 2>&1 | Out-String
        }
        finally {
            $env:PATH = $path
        }

        [pscustomobject] @{ Status = $LASTEXITCODE; Text = $text; Calls = @(Get-Content -LiteralPath $calls -ErrorAction Ignore) }
    }
}

Describe 'build.ps1' -Skip:$IsWindows {
    It 'takes several tasks through -File, in their order' {
        $result = Invoke-Build '-File', "$root/build.ps1", '-Task', 'Build,Test'
        $result.Status | Should -Be 0 -Because $result.Text
        $result.Calls | ForEach-Object { ($_ -split ' ')[0] } | Should -Be 'build', 'test'
    }

    It 'takes several tasks as a list' {
        (Invoke-Build '-Command', "& '$root/build.ps1' -Task Test, Build -Configuration Release").Calls | Should -Be @(
            'test --configuration Release'
            "build $root/LoKr.slnx --configuration Release"
        )
    }

    It 'refuses a task that it does not have before it does anything' {
        $result = Invoke-Build '-File', "$root/build.ps1", '-Task', 'Build,Tset'
        $result.Status | Should -Not -Be 0
        $result.Text | Should -Match 'Choose from Build, Test, Analyze and Package'
        $result.Calls | Should -BeNullOrEmpty
    }

    It 'ends with the command that failed, and does not go on' {
        $result = Invoke-Build '-File', "$root/build.ps1", '-Task', 'Build,Test' -Status 3
        $result.Status | Should -Be 1
        $result.Text | Should -Match 'status 3'
        @($result.Calls).Count | Should -Be 1
    }
}

Describe 'The package' -Skip:$IsWindows {
    BeforeAll {
        # A certificate of its own, for code signing, with a password.
        $key = [System.Security.Cryptography.RSA]::Create(2048)
        $request = [System.Security.Cryptography.X509Certificates.CertificateRequest]::new('CN=LoKr test', $key, 'SHA256', [System.Security.Cryptography.RSASignaturePadding]::Pkcs1)
        $usages = [System.Security.Cryptography.OidCollection]::new()
        $null = $usages.Add([System.Security.Cryptography.Oid]::new('1.3.6.1.5.5.7.3.3'))
        $request.CertificateExtensions.Add([System.Security.Cryptography.X509Certificates.X509EnhancedKeyUsageExtension]::new($usages, $true))
        $script:certificate = $request.CreateSelfSigned([datetimeoffset]::Now.AddDays(-1), [datetimeoffset]::Now.AddDays(1))
        [System.IO.File]::WriteAllBytes("$TestDrive/signing.pfx", $certificate.Export('Pfx', 'a b'))

        $script:out = "$TestDrive/out"
        $command = "& '$root/build.ps1' -Task Package -Configuration $configuration -Destination '$out' -CertificatePath '$TestDrive/signing.pfx' -CertificatePassword (ConvertTo-SecureString 'a b' -AsPlainText)"
        $script:result = Invoke-Build '-Command', $command
        $script:version = (Import-PowerShellDataFile -LiteralPath $manifest).ModuleVersion
    }

    It 'is a zip, a nupkg, a bill of materials and checksums' {
        $result.Status | Should -Be 0 -Because $result.Text
        (Get-ChildItem -LiteralPath $out -File).Name | Sort-Object | Should -Be "LoKr.$version.cdx.json", "LoKr.$version.nupkg", "LoKr.$version.zip", 'SHA256SUMS', 'SHA256SUMS.p7s'
    }

    It 'has checksums that are those of its files' {
        $lines = Get-Content -LiteralPath "$out/SHA256SUMS"
        $lines.Count | Should -Be 3
        foreach ($line in $lines) {
            $hash, $name = $line -split '  '
            (Get-FileHash -LiteralPath "$out/$name").Hash | Should -Be $hash
        }
    }

    It 'has a signature that the certificate made of the checksums' {
        $sums = [System.Security.Cryptography.Pkcs.ContentInfo]::new([System.IO.File]::ReadAllBytes("$out/SHA256SUMS"))
        $message = [System.Security.Cryptography.Pkcs.SignedCms]::new($sums, $true)
        $message.Decode([System.IO.File]::ReadAllBytes("$out/SHA256SUMS.p7s"))
        $message.CheckSignature([System.Security.Cryptography.X509Certificates.X509Certificate2Collection]::new($certificate), $true)
        $message.SignerInfos[0].Certificate.Thumbprint | Should -Be $certificate.Thumbprint
    }

    It 'has a bill of materials that explains every assembly in it, and is part of it' {
        $bill = Get-Content -LiteralPath "$out/LoKr.$version.cdx.json" -Raw | ConvertFrom-Json
        $bill.bomFormat, $bill.metadata.component.name, $bill.metadata.component.version | Should -Be 'CycloneDX', 'LoKr', $version
        $bill.components.purl | Should -Not -Contain $null
        $bill.components.hashes.content | Should -Not -BeNullOrEmpty
        foreach ($file in Get-ChildItem -LiteralPath "$out/LoKr" -Recurse -Filter *.dll | Where-Object Name -NotLike 'LoKr*') {
            # ICSharpCode.SharpZipLib is of the package SharpZipLib, libSkiaSharp of SkiaSharp, Parquet of Parquet.Net, ZstdSharp of ZstdSharp.Port;
            # private dependencies have names of their own.
            $assembly = $file.BaseName -replace '\.LoKr$'
            $bill.components.name | Where-Object { $assembly.EndsWith($_) -or $_.StartsWith("$assembly.") } | Should -Not -BeNullOrEmpty -Because "$file is in the package"
        }

        (Get-FileHash -LiteralPath "$out/LoKr/LoKr.cdx.json").Hash | Should -Be (Get-FileHash -LiteralPath "$out/LoKr.$version.cdx.json").Hash
    }

    It 'is not signed without a certificate, whatever lay there' {
        $result = Invoke-Build '-File', "$root/build.ps1", '-Task', 'Package', '-Configuration', $configuration, '-Destination', $out
        $result.Status | Should -Be 0 -Because $result.Text
        "$out/SHA256SUMS.p7s" | Should -Not -Exist
    }

    It 'is not begun with a certificate that cannot be read' {
        $result = Invoke-Build '-File', "$root/build.ps1", '-Task', 'Package', '-CertificatePath', "$TestDrive/signing.pfx", '-Destination', "$TestDrive/none"
        $result.Status | Should -Be 1
        $result.Calls | Should -BeNullOrEmpty
        "$TestDrive/none" | Should -Not -Exist
    }
}
