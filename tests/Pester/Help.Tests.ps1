#Requires -Version 7.6
#Requires -Modules @{ ModuleName = 'Pester'; ModuleVersion = '5.7.0' }

# What Get-Help and the gallery show besides the pages themselves: addresses, topics, inputs and outputs.

BeforeDiscovery {
    $script:commands = (Import-PowerShellDataFile -LiteralPath "$PSScriptRoot/../../LoKr.psd1").CmdletsToExport
    $script:topics = Get-ChildItem -Path "$PSScriptRoot/../../src/LoKr.PowerShell/en-US/about_*.help.txt" | ForEach-Object { $_.Name -replace '\.help\.txt$' }
}

BeforeAll {
    . "$PSScriptRoot/Common.ps1"
    $script:info = Test-ModuleManifest -Path $manifest
    $script:project = "$($info.ProjectUri)".TrimEnd('/')

    # The file of the repository that an address of the project shows.
    function Get-ProjectFile([string] $Address) {
        $Address | Should -Match ('^' + [regex]::Escape($project) + '/(?:blob|raw)/main/.+')
        Join-Path $root ($Address -replace '^.+?/(?:blob|raw)/main/')
    }
}

Describe 'The manifest' {
    It 'has addresses of one project, of files that exist' {
        $project | Should -Match '^https://'
        Get-ProjectFile $info.LicenseUri | Should -Exist
        Get-ProjectFile $info.IconUri | Should -Exist
    }

    It 'has tags for every platform that the module loads libtorch on' {
        foreach ($tag in 'PSEdition_Core', 'Windows', 'Linux', 'MacOS') {
            $info.Tags | Should -Contain $tag
        }

        # The gallery splits tags at spaces.
        $info.Tags | Where-Object { $_ -match '\s' } | Should -BeNullOrEmpty
    }

    It 'has notes on this release, and the address of the others' {
        $info.ReleaseNotes | Should -Match ([regex]::Escape("$($info.Version)"))
        Get-ProjectFile ([regex]::Match($info.ReleaseNotes, 'https://\S+').Value) | Should -Exist
    }
}

Describe 'Get-Help <_> -Online' -ForEach $commands {
    It 'has the address of its page' {
        $address = (Get-Command -Name $_ -Module LoKr).HelpUri
        $address | Should -Be "$project/blob/main/docs/en-US/$_.md"
        Get-ProjectFile $address | Should -Exist
    }
}

Describe 'Get-Help -Online' -Skip:(-not $IsLinux) {
    It 'opens that address in the browser' {
        # What the system opens addresses with.
        $folder = (New-Item -ItemType Directory -Path "$TestDrive/bin").FullName
        Set-Content -LiteralPath "$folder/xdg-open" -Value "#!/bin/sh`necho `"`$1`" > '$folder/opened.tmp'`nmv '$folder/opened.tmp' '$folder/opened'"
        chmod +x "$folder/xdg-open"
        $path = $env:PATH
        try {
            $env:PATH = "${folder}:$path"
            Get-Help -Name Add-LoKrAdapter -Online
            # The browser is not waited for.
            for ($i = 0; $i -lt 600 -and -not (Test-Path -LiteralPath "$folder/opened"); $i++) {
                Start-Sleep -Milliseconds 100
            }
        }
        finally {
            $env:PATH = $path
        }

        Get-Content -LiteralPath "$folder/opened" | Should -Be "$project/blob/main/docs/en-US/Add-LoKrAdapter.md"
    }
}

Describe 'Inputs and outputs of <_>' -ForEach $commands {
    BeforeAll {
        $script:help = Get-Help -Name $_ -Full
        $script:cmdlet = Get-Command -Name $_ -Module LoKr
    }

    It 'are all named in the help' {
        $parameters = $cmdlet.ParameterSets.Parameters | Where-Object ValueFromPipeline
        $inputs = @($parameters | ForEach-Object { $_.ParameterType.FullName } | Sort-Object -Unique)
        $named = @($help.inputTypes.inputType.type.name | Sort-Object -Unique)
        $named | Should -Be ($inputs.Count -gt 0 ? $inputs : 'None')
        @($help.returnValues.returnValue.type.name) | Should -Be @($cmdlet.OutputType.Name)
    }

    It 'are types of the page' {
        $page = Get-Content -LiteralPath (Join-Path $root "docs/en-US/$_.md") -Raw
        $outputs = [regex]::Match($page, '(?ms)^## OUTPUTS$(.+?)^## ').Groups[1].Value
        $types = [regex]::Matches($outputs, '`((?:LoKr|System)\.[\w.]+)`') | ForEach-Object { $_.Groups[1].Value } | Sort-Object -Unique
        $types | Should -Be @($cmdlet.OutputType.Name | Sort-Object -Unique)
        $page | Should -Match '(?m)^## INPUTS$'
    }
}

Describe '<_>' -ForEach $topics {
    BeforeAll {
        $script:text = Get-Help -Name $_ | Out-String
    }

    It 'opens, and is on its subject' {
        $text | Should -Match "TOPIC\s+$_\b"
        $text | Should -Match 'SHORT DESCRIPTION'
    }

    It 'fits 80 columns' {
        $text -split '\r?\n' | Where-Object Length -GT 80 | Should -BeNullOrEmpty
    }

    It 'names commands, parameters, errors and topics that exist' {
        # A block is code if it begins like code.
        $blocks = [regex]::Matches($text, '(?m)(?:^ {8}.*(?:\r?\n|\z)(?:^\s*\r?\n(?=^ {8}))?)+') | ForEach-Object Value | Where-Object { $_ -cmatch '^ {8}(?:\$|try\b|[A-Z][a-z]+-[A-Z])' }
        $blocks | ForEach-Object { Get-CodeProblem $_ } | Should -BeNullOrEmpty
        [regex]::Matches($text, '\b[A-Z][a-z]+-LoKr[A-Za-z]+\b') | ForEach-Object Value | Where-Object { $_ -notin $info.ExportedCmdlets.Keys } | Should -BeNullOrEmpty
        $errors = Get-Content -LiteralPath (Join-Path $root 'docs/errors.md') -Raw
        [regex]::Matches($text, '\bLoKr\.[A-Z]\w+') | ForEach-Object Value | Where-Object { -not $errors.Contains("``$_``") } | Should -BeNullOrEmpty
        [regex]::Matches($text, '\babout_LoKr\w*') | ForEach-Object Value | Where-Object { -not (Get-Help -Name $_ -ErrorAction Ignore) } | Should -BeNullOrEmpty
    }

    It 'is of the package' {
        Join-Path (Split-Path -Path $manifest -Parent) "en-US/$_.help.txt" | Should -Exist
    }
}

Describe 'The topics' {
    It 'are the subject and its four parts at least' {
        $topics = (Get-Help -Name about_LoKr*).Name
        foreach ($name in 'about_LoKr', 'about_LoKr_Training', 'about_LoKr_Formats', 'about_LoKr_Errors', 'about_LoKr_Unattended') {
            $topics | Should -Contain $name
        }
    }
}
