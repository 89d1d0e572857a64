# What the test files share. Each dot-sources it in BeforeAll.

$script:root = (Resolve-Path -LiteralPath "$PSScriptRoot/../..").Path

# The module that LOKR_MODULE names, as `dotnet test` does, or the one that is imported already, as in LoKr.Shell, or the debug build.
$script:loaded = Get-Module -Name LoKr | Select-Object -First 1
$script:manifest = if ($env:LOKR_MODULE) {
    (Resolve-Path -LiteralPath $env:LOKR_MODULE).Path
}
elseif ($loaded) {
    Join-Path $loaded.ModuleBase 'LoKr.psd1'
}
else {
    Join-Path $root 'artifacts/bin/LoKr.PowerShell/debug/LoKr.psd1'
}
Import-Module -Name $manifest -Force

# Numbers in views are written as the person reads them; these tests read English.
[cultureinfo]::CurrentCulture = [cultureinfo]::InvariantCulture

# The tiny models and data of the C# tests, built beside the module.
$script:configuration = (Split-Path -Path $manifest -Parent | Split-Path -Leaf) -eq 'release' ? 'release' : 'debug'
$null = [System.Reflection.Assembly]::LoadFrom((Join-Path $root "artifacts/bin/LoKr.Testing/$configuration/LoKr.Testing.dll"))

$script:encoder = Join-Path $root 'examples/models/tiny-encoder'
$script:train = Join-Path $root 'examples/data/tickets.train.jsonl'
$script:eval = Join-Path $root 'examples/data/tickets.eval.jsonl'
$script:labels = 'access', 'billing', 'email', 'hardware', 'network', 'software'
$script:texts = 'The printer has a paper jam.', 'I forgot my password.', 'Please send the invoice again.'

# The reference numbers; models, data and cases lie beside them.
$script:fixtures = $env:LOKR_FIXTURES ? $env:LOKR_FIXTURES : "$root/../shared/fixtures"

# A copy of small inputs that went wrong once, and of the cases beside it that its script names. Their case.md has command and right value. The test is skipped where they are absent.
function Copy-Case([string] $Name, [string[]] $Beside = @()) {
    foreach ($case in @($Name) + $Beside) {
        $source = "$fixtures/../cases/$case"
        if (-not (Test-Path -LiteralPath $source)) {
            Set-ItResult -Skipped -Because "there is no reference material at $source"
        }

        $null = New-Item -ItemType Directory -Path "$TestDrive/cases" -Force
        Copy-Item -LiteralPath $source -Destination "$TestDrive/cases" -Recurse -Force
        Get-ChildItem -LiteralPath "$TestDrive/cases/$case" -Recurse -File | ForEach-Object { $_.IsReadOnly = $false }
    }

    "$TestDrive/cases/$Name"
}

# Skips a test that sends SIGINT where it is ignored: what a shell starts in the background ignores it, and so do its children.
function Skip-IgnoredInterrupt([string] $Signal = 'INT') {
    if ($Signal -eq 'INT' -and (Test-Path -LiteralPath /proc/self/status) -and (Get-Content -LiteralPath /proc/self/status) -match '^SigIgn:.*[2367abef]$') {
        Set-ItResult -Skipped -Because 'SIGINT is ignored by this process'
    }
}

# A link to a folder. The test is skipped where this user may not make any, as on Windows without the privilege.
function Add-Link([string] $Path, [string] $Target) {
    $null = New-Item -ItemType SymbolicLink -Path $Path -Target $Target -ErrorAction SilentlyContinue
    if (-not (Get-Item -LiteralPath $Path -ErrorAction Ignore)) {
        Set-ItResult -Skipped -Because 'links cannot be made here'
    }
}

# The small encoder with a fresh head: the same at every call.
function Get-Model {
    Import-LoKrModel -Path $encoder -Label $labels -Seed 1 -Device cpu -WarningAction SilentlyContinue
}

# The same with an adapter on the queries, and the head trained beside it.
function Get-AdaptedModel {
    $model = Get-Model
    New-LoKrConfig -R 4 -Alpha 8 -TargetModules query -TaskType SEQ_CLS | Add-LoKrAdapter -Model $model -Seed 1 -PassThru
}

# A BERT of a few kilobytes with a fresh head, and data that it can learn: $rows to train on, $rowsToMeasure beside them.
function Get-TinyModel {
    $script:tiny = [LoKr.Testing.TinyModel]::WriteBert("$TestDrive/bert")
    $script:rows = [LoKr.Testing.TinyData]::WriteTickets("$TestDrive/train.jsonl", 96, 1)
    $script:rowsToMeasure = [LoKr.Testing.TinyData]::WriteTickets("$TestDrive/eval.jsonl", 24, 2)
    Import-LoKrModel -LiteralPath $tiny -Label network, access, billing -Seed 1 -WarningAction SilentlyContinue
}

# The same with an adapter on queries and values, and the head trained beside it.
function Get-AdaptedTinyModel {
    $model = Get-TinyModel
    New-LoKrConfig -R 2 -Alpha 4 -TargetModules query, value -ModulesToSave classifier | Add-LoKrAdapter -Model $model -Seed 1 -PassThru
}

# The loss of a model on the tiny data.
function Get-Loss([LoKr.Core.Model.LoKrModel] $Model) {
    ($Model | Measure-LoKrModel -Data $rowsToMeasure).Loss
}

# Everything below a folder, by name and content.
function Get-Snapshot([string] $Path) {
    Get-ChildItem -LiteralPath $Path -Recurse -Force | ForEach-Object {
        $hash = $_.PSIsContainer ? '' : (Get-FileHash -LiteralPath $_.FullName).Hash
        "$($_.FullName) $hash"
    }
}

# The one error that a script block ends with or writes.
function Get-Failure([scriptblock] $Script) {
    try {
        $failures = @(& $Script 2>&1 | Where-Object { $_ -is [System.Management.Automation.ErrorRecord] })
    }
    catch {
        $failures = @($_)
    }

    if ($failures.Count -ne 1) {
        throw "There were $($failures.Count) errors. $failures"
    }

    $failures[0]
}

# Its id.
function Get-ErrorId([scriptblock] $Script) {
    ((Get-Failure $Script).FullyQualifiedErrorId -split ',')[0]
}

# What people see.
function Get-Display([object] $InputObject, [int] $Width = 120) {
    $PSStyle.OutputRendering = 'PlainText'
    $InputObject | Out-String -Width $Width
}

# What the tab key offers at the end of a line.
function Get-Completion([string] $Line) {
    (TabExpansion2 -inputScript $Line -cursorColumn $Line.Length).CompletionMatches.CompletionText
}

# What is wrong with a piece of PowerShell that stands in a page: it does not parse, or a command or one of its parameters does not exist.
function Get-CodeProblem([string] $Code) {
    $errors = $null
    $ast = [System.Management.Automation.Language.Parser]::ParseInput($Code, [ref] $null, [ref] $errors)
    $errors | ForEach-Object { "line $($_.Extent.StartLineNumber): $($_.Message)" }
    foreach ($call in $ast.FindAll({ $args[0] -is [System.Management.Automation.Language.CommandAst] }, $true)) {
        $name = $call.GetCommandName()
        if ($name -notmatch '^[A-Za-z]+-[A-Za-z]+$') {
            continue
        }

        $command = Get-Command -Name $name -ErrorAction Ignore
        if (-not $command) {
            "$name is not a command"
            continue
        }

        $known = @($command.Parameters.Keys) + @($command.Parameters.Values.Aliases)
        $call.CommandElements | Where-Object { $_ -is [System.Management.Automation.Language.CommandParameterAst] -and $_.ParameterName -notin $known } |
            ForEach-Object { "$name has no parameter -$($_.ParameterName)" }
    }
}

# LoKr.Shell, and the pwsh that runs the tests.
$script:shell = $env:LOKR_SHELL ? $env:LOKR_SHELL : (Join-Path $root 'artifacts/bin/LoKr.Shell/debug/LoKr.Shell.dll')
$script:pwsh = Join-Path $PSHOME 'pwsh.dll'

# Runs a shell to its end, with a signal after a line of its output: Output, Error (text) and ExitCode.
function Invoke-Shell([string[]] $ArgumentList, [string] $InputText = '', [string] $Signal = '', [string] $After = '', [string] $Program = $shell) {
    $start = [System.Diagnostics.ProcessStartInfo]::new('dotnet')
    foreach ($argument in @($Program, '-NoProfile') + $ArgumentList) {
        $start.ArgumentList.Add($argument)
    }

    $start.RedirectStandardInput = $start.RedirectStandardOutput = $start.RedirectStandardError = $true
    $start.WorkingDirectory = "$TestDrive"
    $start.Environment['NO_COLOR'] = '1'
    $start.Environment['TERM'] = 'dumb'
    $process = [System.Diagnostics.Process]::Start($start)
    try {
        $failed = $process.StandardError.ReadToEndAsync()
        $process.StandardInput.Write($InputText)
        $process.StandardInput.Close()
        $lines = @(while ($Signal -and $null -ne ($line = $process.StandardOutput.ReadLine())) {
                $line
                if ($line -like "*$After*") {
                    & kill "-$Signal" $process.Id
                    break
                }
            })
        $rest = $process.StandardOutput.ReadToEndAsync()
        if (-not $process.WaitForExit(180000)) {
            throw "The shell did not end. $($rest.Result)"
        }

        [pscustomobject] @{
            Output   = @($lines) + @($rest.Result -split '\r?\n') | ForEach-Object { $_ -replace '\e\[\?1[hl]' } | Where-Object { $_ }
            Error    = $failed.Result
            ExitCode = $process.ExitCode
        }
    }
    finally {
        if (-not $process.HasExited) {
            $process.Kill($true)
        }

        $process.Dispose()
    }
}

function Write-Script([string] $Text) {
    Set-Content -LiteralPath "$TestDrive/script.ps1" -Value $Text
    "$TestDrive/script.ps1"
}
