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

Describe 'The PowerShell in <Page>' -ForEach $pages {
    It 'parses, and its commands have the parameters that they are given' {
        $text = Get-Content -LiteralPath (Join-Path $root $Page) -Raw
        [regex]::Matches($text, '(?ms)^```powershell\n(.+?)^```') | ForEach-Object { Get-CodeProblem $_.Groups[1].Value } | Should -BeNullOrEmpty
    }
}

Describe 'The table from PEFT and LyCORIS' {
    BeforeDiscovery {
        # Rows of two cells; a bar inside code is escaped.
        $script:calls = Get-Content -LiteralPath "$PSScriptRoot/../../docs/from-peft-and-lycoris.md" | Where-Object { $_ -match '^\| `?\S' -and $_ -notmatch '^\| (?:PEFT|LyCORIS|question) \|' } | ForEach-Object {
            $cells = ($_ -split '(?<!\\)\|').Trim()
            @{ There = $cells[1]; Here = $cells[2].Replace('\|', '|'); Count = $cells.Count }
        }
    }

    It 'has a command, or says why not, for <There>' -ForEach $calls {
        $Count | Should -Be 4
        $code = @([regex]::Matches($Here, '`([^`]+)`') | ForEach-Object { $_.Groups[1].Value })
        # A row without a command has a reason; in a reason, only what looks like a command is one.
        if ($Here -notmatch '^\*not here:\* \S') {
            $code | Should -Not -BeNullOrEmpty
        }

        foreach ($command in $code | Where-Object { $_ -match '^[$\[''(]|^[A-Z][a-z]+-[A-Z]' }) {
            Get-CodeProblem $command | Should -BeNullOrEmpty
        }
    }

    It 'names every command of the module' {
        $text = Get-Content -LiteralPath (Join-Path $root 'docs/from-peft-and-lycoris.md') -Raw
        (Get-Command -Module LoKr).Name | Where-Object { $text -notmatch "\b$_\b" } | Should -BeNullOrEmpty
    }

    It 'names members that exist' {
        $text = Get-Content -LiteralPath (Join-Path $root 'docs/from-peft-and-lycoris.md') -Raw
        $model = Get-AdaptedTinyModel
        try {
            $members = @([regex]::Matches($text, '`(\$model\.[^`|]+)`') | ForEach-Object { $_.Groups[1].Value } | Where-Object { $_ -notlike '*$batch*' } | Sort-Object -Unique)
            $members.Count | Should -BeGreaterThan 8
            foreach ($member in $members) {
                $null -eq (& ([scriptblock]::Create($member))) | Should -BeFalse -Because "$member has a value"
            }

            [LoKr.Core.Factors.Factorization]::Split(768, 8).Item2 | Should -Be 96
            [LoKr.Core.Factors.Factorization]::Split(768, 8, 'Lycoris').Item2 | Should -Be 96
        }
        finally {
            $model.Dispose()
        }
    }
}

Describe 'The table of environment variables' {
    It 'has every variable that the source reads' {
        $names = Get-ChildItem -Path "$root/src" -Filter *.cs -Recurse | Where-Object FullName -NotMatch '[\\/](bin|obj)[\\/]' | Select-String -Pattern '\bLOKR_[A-Z_]+\b' -AllMatches -CaseSensitive |
            ForEach-Object { $_.Matches.Value } | Sort-Object -Unique
        $names.Count | Should -BeGreaterThan 2
        $rows = Select-String -Path "$root/docs/getting-started.md" -Pattern '^\| `(LOKR_[A-Z_]+)`' | ForEach-Object { $_.Matches.Groups[1].Value }
        $names | Where-Object { $_ -notin $rows } | Should -BeNullOrEmpty
    }
}

Describe 'The readme' {
    It 'names the two commands' {
        $text = Get-Content -LiteralPath (Join-Path $root 'README.md') -Raw
        $text | Should -Match ([regex]::Escape('dotnet run --project src/LoKr.Shell -- examples/Quickstart.ps1'))
        $text | Should -Match '(?m)^dotnet test$'
    }

    It 'begins with a pipeline that runs on the encoder and the tickets of the repository' {
        $work = (New-Item -ItemType Directory -Path "$TestDrive/readme/examples" -Force).Parent.FullName
        Copy-Item -LiteralPath (Join-Path $root 'examples/models'), (Join-Path $root 'examples/data') -Destination "$work/examples" -Recurse
        $code = [regex]::Match((Get-Content -LiteralPath (Join-Path $root 'README.md') -Raw), '(?ms)^```powershell\n(?:Import-Module [^\n]+\n)?(.+?)^```').Groups[1].Value
        Push-Location -LiteralPath $work
        try {
            $null = . ([scriptblock]::Create($code)) 3>&1
            $model.LastTraining.After.Accuracy | Should -BeGreaterThan 0.6
            $model.Dispose()
            $again = Import-LoKrModel ./examples/models/tiny-encoder -Label $labels -WarningAction SilentlyContinue
            $accuracy = ($again | Import-LoKrAdapter ./adapter | Measure-LoKrModel -Data $eval).Accuracy
            $merged = Import-LoKrModel ./merged
            ($merged | Measure-LoKrModel -Data $eval).Accuracy | Should -Be $accuracy
            $again.Dispose()
            $merged.Dispose()
        }
        finally {
            Pop-Location
        }
    }
}

Describe 'The pages of the cmdlets' {
    It 'end with the syntax and the parameters of the module' {
        $builder = Join-Path $root "artifacts/bin/HelpBuilder/$configuration/HelpBuilder.dll"
        $text = dotnet $builder $manifest (Join-Path $root 'docs/en-US') -Check 2>&1 | Out-String
        $LASTEXITCODE | Should -Be 0 -Because $text
    }
}

Describe 'The text of the help' {
    It 'of <Cmdlet> has an example as people write it: <Title>' -ForEach $cases {
        Get-CodeProblem $Code | Should -BeNullOrEmpty
        # Nothing has to be thrown away at the prompt, and lists are for cmdlets, not for methods.
        $Code | Should -Not -Match 'Out-Null|\$null =|> \$null|\[void\]|\[(?:System\.)?(?:IO|Linq)\.'
    }
}

Describe 'The help' {
    BeforeAll {
        # A folder such as a reader has: the encoder and the tickets of the repository, and tiny models of the other kinds.
        $script:template = (New-Item -ItemType Directory -Path "$TestDrive/template").FullName
        Copy-Item -LiteralPath $encoder -Destination "$template/minilm" -Recurse
        Copy-Item -Path "$root/examples/data/*.jsonl" -Destination $template
        $null = [LoKr.Testing.TinyModel]::WriteLlama("$template/llama")
        $null = [LoKr.Testing.TinyModel]::WriteChat("$template/chat", '')
        $null = [LoKr.Testing.TinyData]::WriteChats("$template/chats.jsonl", 8)
        $null = [LoKr.Testing.TinyGguf]::Write("$template/llama.gguf")
        $null = [LoKr.Testing.TinyPipeline]::Write("$template/stable-diffusion", $false, $null)
        $null = [LoKr.Testing.TinyImages]::Write("$template/photos", 4)
        $null = [LoKr.Testing.TinyData]::WriteCompletions("$template/pairs.jsonl", 8)
        $model = Get-AdaptedModel
        $model | Export-LoKrAdapter -Destination "$template/adapter"
        $model.Dispose()
    }

    BeforeEach {
        $script:work = "$TestDrive/$(New-Guid)"
        Copy-Item -LiteralPath $template -Destination $work -Recurse
        Push-Location -LiteralPath $work
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
