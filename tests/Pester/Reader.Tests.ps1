#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# README and getting started as a reader follows them: every command from top to bottom, in the root of a clone, in one pwsh.

BeforeDiscovery {
    $script:pages = @(
        @{
            Page  = 'README.md'
            # Takes minutes and data beside the repository; a GPU; a package that is built first, which Package.Tests.ps1 installs.
            Apart = 'On real data', 'On a GPU', 'Install'
            Files = 'merged/model.safetensors', 'adapter/adapter_model.safetensors', 'second.safetensors', 'merged-again/model.safetensors'
        }
        @{
            Page  = 'docs/getting-started.md'
            Apart = 'On a GPU'
            Files = 'adapter/adapter_config.json', 'merged/model.safetensors'
        }
    )
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"

    # Blocks of commands, in their order, without those of some sections.
    function Get-Block([string] $Page, [string[]] $Apart) {
        $sections = (Get-Content -LiteralPath (Join-Path $root $Page) -Raw) -split '(?m)^(?=## )' | Where-Object { ($_ -split '\n')[0].TrimStart('#').Trim() -notin $Apart }
        [regex]::Matches(-join $sections, '(?ms)^```(?<language>powershell|sh)\n(?<code>.+?)^```') | ForEach-Object { @{ Language = $_.Groups['language'].Value; Code = $_.Groups['code'].Value } }
    }

    # A dotnet for which everything is built already; it runs LoKr.Shell from its build, and writes down the rest.
    function Write-Dotnet([string] $Folder) {
        $dotnet = (Get-Command -Name dotnet -CommandType Application)[0].Source
        $shell = $env:LOKR_SHELL ? $env:LOKR_SHELL : (Join-Path $root "artifacts/bin/LoKr.Shell/$configuration/LoKr.Shell.dll")
        Set-Content -LiteralPath "$Folder/dotnet" -Value @"
#!/bin/sh
case "`$1 `$2 `$3" in
    'build src/LoKr.PowerShell '|'test  ') echo "`$*" >> '$Folder/calls' ;;
    'run --project src/LoKr.Shell') shift 4; exec '$dotnet' '$shell' "`$@" ;;
    *.dll*) exec '$dotnet' "`$@" ;;
    *) echo "no reader was expected to run: dotnet `$*" >&2; exit 1 ;;
esac
"@
        chmod +x "$Folder/dotnet"
    }
}

Describe 'A reader of <Page>' -Skip:$IsWindows -ForEach $pages {
    It 'gets through it from top to bottom' {
        $clone = (New-Item -ItemType Directory -Path "$TestDrive/$(New-Guid)").FullName
        Copy-Item -LiteralPath "$root/examples" -Destination $clone -Recurse
        Add-Link -Path "$clone/artifacts" -Target "$root/artifacts"
        $bin = (New-Item -ItemType Directory -Path "$clone.bin").FullName
        Write-Dotnet $bin

        $number = 0
        $script = @(
            "`$ErrorActionPreference = 'Stop'"
            "`$env:PATH = '$bin' + [System.IO.Path]::PathSeparator + `$env:PATH"
            foreach ($block in Get-Block $Page $Apart) {
                $number++
                "'--- block $number'"
                if ($block.Language -eq 'powershell') {
                    $block.Code.Replace('bin/LoKr.PowerShell/debug/', "bin/LoKr.PowerShell/$configuration/")
                }
                else {
                    Set-Content -LiteralPath "$bin/block$number.sh" -Value $block.Code
                    "sh -e '$bin/block$number.sh'"
                    "if (`$LASTEXITCODE -ne 0) { throw 'block $number ended with status ' + `$LASTEXITCODE }"
                }
            }
            "'--- end'"
        )
        $number | Should -BeGreaterThan 4
        Set-Content -LiteralPath "$clone/reader.ps1" -Value $script
        Push-Location -LiteralPath $clone
        try {
            $text = pwsh -NoProfile -NonInteractive -File ./reader.ps1 2>&1 | Out-String
            $status = $LASTEXITCODE
        }
        finally {
            Pop-Location
        }

        $status | Should -Be 0 -Because $text
        $text | Should -Match '--- end\s*$'
        $text | Should -Match 'gives the same answers' -Because 'the quickstart ran'
        foreach ($file in $Files) {
            "$clone/$file" | Should -Exist
        }
    }
}

Describe 'The session that getting started shows' {
    It 'is what a session shows' {
        & "$root/tools/Write-Transcript.ps1" -Check
    }

    It 'fits its columns' {
        $page = Get-Content -LiteralPath "$root/docs/getting-started.md" -Raw
        $transcripts = [regex]::Matches($page, '(?s)<!-- transcript (?<width>\d+) -->\n```text\n(?<text>.*?)```')
        $transcripts.ForEach({ $_.Groups['width'].Value }) | Should -Be '80', '120'
        foreach ($transcript in $transcripts) {
            $width = [int] $transcript.Groups['width'].Value
            # A command is as long as it is typed.
            $transcript.Groups['text'].Value -split '\n' | Where-Object { $_.Length -gt $width -and $_ -notlike 'PS> *' } | Should -BeNullOrEmpty
        }
    }
}
