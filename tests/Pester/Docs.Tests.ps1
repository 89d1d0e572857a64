#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What the pages tell people to use exists, and the examples of the help run.

BeforeDiscovery {
    $script:repository = (Resolve-Path -LiteralPath "$PSScriptRoot/../..").Path
    $script:pages = @(
        Get-ChildItem -Path "$repository/*.md", "$repository/docs/*.md" | ForEach-Object FullName
        Get-ChildItem -Path "$repository/examples" -Filter *.md -Recurse | ForEach-Object FullName
    ) | ForEach-Object { @{ Page = [System.IO.Path]::GetRelativePath($repository, $_).Replace('\', '/') } }

    # Every block of PowerShell below EXAMPLES, one a title.
    $script:cases = foreach ($file in Get-ChildItem -Path "$repository/docs/en-US/*-*.md") {
        $examples = [regex]::Match((Get-Content -LiteralPath $file.FullName -Raw), '(?ms)^## EXAMPLES$(.+?)^## ').Groups[1].Value
        foreach ($match in [regex]::Matches($examples, '(?ms)^### (?<title>.+?)$.*?^```powershell\n(?<code>.+?)^```')) {
            @{ Cmdlet = $file.BaseName; Title = $match.Groups['title'].Value; Code = $match.Groups['code'].Value }
        }
    }
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
}

Describe '<Page>' -ForEach $pages {
    BeforeAll {
        $script:file = Join-Path $root $Page
        $script:text = Get-Content -LiteralPath $file -Raw
    }

    It 'names cmdlets that are exported' {
        $exported = (Import-PowerShellDataFile -LiteralPath (Join-Path $root 'LoKr.psd1')).CmdletsToExport
        [regex]::Matches($text, '\b[A-Z][a-z]+-LoKr[A-Za-z]+\b') | ForEach-Object Value | Where-Object { $_ -notin $exported -and $_ -ne 'Verb-LoKrNoun' } | Should -BeNullOrEmpty
    }

    It 'names and links files that exist' {
        # What stands for the name of a file that the reader is going to write.
        $placeholder = 'NAME|Verb-?LoKrNoun'
        [regex]::Matches($text, '(?<![\w/.-])(?:examples|src|tests|docs|tools)/[A-Za-z0-9_./-]*[A-Za-z0-9]') | ForEach-Object Value |
            Where-Object { $_ -notmatch $placeholder -and -not (Test-Path -LiteralPath (Join-Path $root $_)) } | Should -BeNullOrEmpty
        [regex]::Matches($text, '\]\(([^)#]+)\)') | ForEach-Object { $_.Groups[1].Value } |
            Where-Object { $_ -notlike 'http*' -and -not (Test-Path -LiteralPath (Join-Path (Split-Path -Path $file) $_)) } | Should -BeNullOrEmpty
    }
}

Describe 'The readme' {
    It 'names the two commands' {
        $text = Get-Content -LiteralPath (Join-Path $root 'README.md') -Raw
        $text | Should -Match ([regex]::Escape('dotnet run --project src/LoKr.Shell -- examples/Quickstart.ps1'))
        $text | Should -Match '(?m)^dotnet test$'
    }
}

Describe 'The pages of the cmdlets' {
    It 'end with the syntax and the parameters of the module' {
        $builder = Join-Path $root "artifacts/bin/HelpBuilder/$configuration/HelpBuilder.dll"
        $text = dotnet $builder $manifest (Join-Path $root 'docs/en-US') -Check 2>&1 | Out-String
        $LASTEXITCODE | Should -Be 0 -Because $text
    }
}

Describe 'The help' {
    BeforeEach {
        $script:work = (New-Item -ItemType Directory -Path "$TestDrive/$(New-Guid)").FullName
        $null = [LoKr.Testing.TinyModel]::WriteBert("$work/minilm")
        $null = [LoKr.Testing.TinyModel]::WriteLlama("$work/llama")
        $null = [LoKr.Testing.TinyPipeline]::Write("$work/stable-diffusion", $false, $null)
        $null = [LoKr.Testing.TinyImages]::Write("$work/photos", 4)
        $null = [LoKr.Testing.TinyData]::WriteTickets("$work/tickets.train.jsonl", 30, 1)
        $null = [LoKr.Testing.TinyData]::WriteTickets("$work/tickets.eval.jsonl", 12, 2)
        $null = [LoKr.Testing.TinyData]::WriteCompletions("$work/pairs.jsonl", 8)
        Push-Location -LiteralPath $work
        $first = Import-LoKrModel -Path ./minilm -Label network, access, billing -WarningAction SilentlyContinue
        New-LoKrConfig -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter -Model $first | Export-LoKrAdapter -Destination ./adapter
        $first.Dispose()
    }

    AfterEach {
        Pop-Location
        Remove-Item -LiteralPath $work -Recurse -Force
    }

    It 'of <Cmdlet> has an example that runs: <Title>' -ForEach $cases {
        Set-StrictMode -Off
        $ErrorActionPreference = 'Stop'
        $model = $null
        . ([scriptblock]::Create($Code)) *> $null
        if ($model) {
            $model.Dispose()
        }
    }
}
