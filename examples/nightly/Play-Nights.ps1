#Requires -Version 7.6
#Requires -Modules LoKr

<#
.SYNOPSIS
    Plays four nights of a job that trains an adapter on the tickets of a help desk, and takes one back.

.DESCRIPTION
    Each night is a process of its own without a terminal, as a scheduler starts it:

    night 1    60 tickets:  version 1 is published               exit code 0
    night 2    the same tickets: nothing to do                   exit code 2
    night 3    600 tickets: version 2 is better, and published   exit code 0
    night 4    600 more tickets with the wrong labels:
               worse than version 2, which stays                 exit code 4

    Then version 2 is taken back, and version 1 is in use again.

    The job is tickets.job.psd1, the encoder and the tickets are those of the repository.

.EXAMPLE
    ./examples/nightly/Play-Nights.ps1

.EXAMPLE
    ./examples/nightly/Play-Nights.ps1 -Path ./nights

    Keeps the folder: job, data, runs, registry, and the log of each night.
#>
[CmdletBinding()]
[OutputType([pscustomobject])]
param(
    # Folder to work in, which does not exist; without it a temporary one, which is removed.
    [string] $Path
)

$ErrorActionPreference = 'Stop'
$examples = Split-Path -Path $PSScriptRoot
$keep = [bool] $Path
$folder = $keep ? $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Path) : (Join-Path ([System.IO.Path]::GetTempPath()) "lokr-nightly-$([guid]::NewGuid())")
$module = Join-Path (Get-Module -Name LoKr).ModuleBase 'LoKr.psd1'

# The PowerShell that runs this: pwsh, or a program of .NET that dotnet runs.
$shell = @([Environment]::ProcessPath)
if ([System.IO.Path]::GetFileNameWithoutExtension($shell[0]) -eq 'dotnet') {
    $shell += [System.IO.Path]::GetFullPath([Environment]::GetCommandLineArgs()[0])
}

function Invoke-Night([int] $Number) {
    $log = Join-Path $folder "night-$Number.log"
    $start = @{
        FilePath               = $shell[0]
        ArgumentList           = @($shell | Select-Object -Skip 1 | ForEach-Object { "`"$_`"" }) + '-NoProfile', '-NonInteractive', '-File', "`"$(Join-Path $folder 'nightly.ps1')`"", '-Module', "`"$module`""
        RedirectStandardOutput = $log
        RedirectStandardError  = "$log.err"
        WorkingDirectory       = $folder
    }
    $process = Start-Process @start -PassThru -Wait
    $result = Get-Content -LiteralPath (Join-Path $folder 'runs/tickets/result.json') -Raw | ConvertFrom-Json
    $champion = Get-LoKrAdapterVersion tickets -Registry (Join-Path $folder 'registry') -Alias champion
    [pscustomobject] @{
        Night    = $Number
        ExitCode = $process.ExitCode
        State    = $result.state
        Champion = $champion.Version
        Accuracy = $champion.Card.Evaluation.Accuracy
        Message  = $result.message
    }
}

try {
    $null = New-Item -ItemType Directory -Path (Join-Path $folder 'data')
    Copy-Item -LiteralPath "$PSScriptRoot/tickets.job.psd1", "$PSScriptRoot/nightly.ps1" -Destination $folder
    Copy-Item -LiteralPath "$examples/models/tiny-encoder" -Destination (Join-Path $folder 'model') -Recurse
    Copy-Item -LiteralPath "$examples/data/tickets.eval.jsonl" -Destination (Join-Path $folder 'eval.jsonl')

    # The classes lie one after the other; each night gets some of each.
    $tickets = @(Get-Content -LiteralPath "$examples/data/tickets.train.jsonl")
    $first = @(for ($i = 0; $i -lt $tickets.Count; $i += 10) { $tickets[$i] })
    $rest = @(for ($i = 0; $i -lt $tickets.Count; $i++) { if ($i % 10) { $tickets[$i] } })

    Set-Content -LiteralPath (Join-Path $folder 'data/night-1.jsonl') -Value $first
    Invoke-Night 1

    Invoke-Night 2

    Set-Content -LiteralPath (Join-Path $folder 'data/night-3.jsonl') -Value $rest
    Invoke-Night 3

    # Somebody sorted a column of a table and not the others.
    $labels = @($tickets | ConvertFrom-Json | Select-Object -ExpandProperty label -Unique)
    $spoiled = foreach ($ticket in $tickets | ConvertFrom-Json) {
        $ticket.label = $labels[($labels.IndexOf($ticket.label) + 1) % $labels.Count]
        ConvertTo-Json -InputObject $ticket -Compress
    }
    Set-Content -LiteralPath (Join-Path $folder 'data/night-4.jsonl') -Value $spoiled
    Invoke-Night 4

    $before = Restore-LoKrAdapter tickets -Registry (Join-Path $folder 'registry')
    [pscustomobject] @{ Night = 5; ExitCode = $null; State = 'Restored'; Champion = $before.Version; Accuracy = $before.Card.Evaluation.Accuracy; Message = 'Version 2 was taken back.' }
}
finally {
    if (-not $keep -and (Test-Path -LiteralPath $folder)) {
        Remove-Item -LiteralPath $folder -Recurse -Force
    }
}
