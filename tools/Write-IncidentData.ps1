#Requires -Version 7.6

<#
.SYNOPSIS
    Writes examples/data/incidents.train.conll and incidents.eval.conll: invented messages of an operations team, with the hosts, services, versions and people in them.

.DESCRIPTION
    Sentences are put together from the patterns and names below. The evaluation has patterns and names of its own beside those of the training, so that it
    asks for more than a list of words, and no sentence of the training. The same seed writes the same files.

.EXAMPLE
    ./tools/Write-IncidentData.ps1
#>
[CmdletBinding()]
param(
    # Folder of the files.
    [string] $Destination = "$PSScriptRoot/../examples/data",

    [int] $TrainCount = 480,

    [int] $EvalCount = 120,

    [int] $Seed = 7
)

$ErrorActionPreference = 'Stop'

# {HOST}, {SERVICE}, {VERSION} and {PERSON} are filled in; words are separated by spaces.
$patterns = @(
    '{SERVICE} on {HOST} does not answer .'
    '{SERVICE} is down on {HOST} and {HOST} since midnight .'
    '{PERSON} restarted {SERVICE} on {HOST} .'
    'please upgrade {SERVICE} to {VERSION} on {HOST}'
    '{HOST} : disk is full , {SERVICE} cannot write its log'
    'the update of {SERVICE} from {VERSION} to {VERSION} failed on {HOST} .'
    '{PERSON} will look at {HOST} tomorrow .'
    'can somebody reboot {HOST} ?'
    'after the upgrade to {VERSION} {SERVICE} does not start'
    '{HOST} lost its network connection , says {PERSON} .'
    'backup of {HOST} took six hours .'
    'who changed the password of {SERVICE} ?'
    'ticket for {PERSON} : certificate of {HOST} expires on friday'
    'all users are locked out of {SERVICE} .'
    'roll {SERVICE} back to {VERSION} , please'
    'the printer on the second floor has a paper jam .'
    'no alerts this weekend , thanks to {PERSON} and {PERSON} .'
    '{HOST} and {HOST} have different clocks .'
)
$newPatterns = @(
    'we moved {SERVICE} from {HOST} to {HOST} last night .'
    '{PERSON} reports errors of {SERVICE} {VERSION} on {HOST} .'
    'memory of {HOST} is low .'
    'is {SERVICE} {VERSION} safe to install ?'
    'the new monitor is broken .'
)
$numbers = 'one', 'two', 'three', 'five', 'six', 'seven', 'eight', 'ten', 'eleven', 'twelve'
$names = @{
    HOST    = @(
        foreach ($kind in 'web', 'db', 'mail', 'file', 'vpn', 'print', 'backup', 'proxy') { 1, 2, 3, 5, 8, 11, 14, 20 | ForEach-Object { "$kind$_" } }
        foreach ($number in $numbers) { "node $number"; "rack $number" }
    )
    SERVICE = @(
        'nginx', 'postgresql', 'redis', 'apache', 'rabbitmq', 'samba', 'docker', 'postfix', 'grafana', 'jenkins', 'openvpn', 'squid', 'vault', 'consul', 'bind'
        foreach ($kind in 'mail', 'license', 'build', 'time', 'name') { "the $kind server" }
        'the web shop', 'the backup service', 'the print queue', 'the login page', 'the update service', 'the job queue', 'the intranet'
    )
    VERSION = @(
        foreach ($major in 0, 1, 2, 3, 5, 7, 11, 16) { 0, 1, 3, 8, 12 | ForEach-Object { "$major.$_"; "$major.$_.4" } }
        9, 12, 14, 2023 | ForEach-Object { "version $_" }
    )
    PERSON  = @(
        'Anna', 'Ben', 'Mia', 'Jonas', 'Tom', 'Sara', 'Omar', 'Ines', 'Karl', 'Yuki'
        foreach ($name in 'Keller', 'Okafor', 'Lind', 'Weber', 'Ito', 'Costa') { "Ms $name"; "Mr $name"; "Dr $name" }
        'Tom Weber', 'Sara Lind', 'Omar Costa'
    )
}
$newNames = @{
    HOST    = 'web7', 'db9', 'mail4', 'cache2', 'git1', 'node four', 'rack nine', 'file6', 'proxy12'
    SERVICE = 'haproxy', 'mysql', 'kafka', 'the calendar server', 'the ticket queue', 'the sync service'
    VERSION = '4.1', '1.18.2', 'version 3', '22.4', '6.0.1'
    PERSON  = 'Lea', 'Paul', 'Ms Novak', 'Mr Chen', 'Paul Meyer'
}

function Get-Sentence([System.Random] $Random, [string[]] $Pattern, [hashtable] $Name) {
    $words = foreach ($part in $Pattern[$Random.Next($Pattern.Count)] -split ' ') {
        if ($part -match '^\{(\w+)\}$') {
            $prefix = 'B'
            foreach ($word in $Name[$Matches[1]][$Random.Next($Name[$Matches[1]].Count)] -split ' ') {
                "$word $prefix-$($Matches[1])"
                $prefix = 'I'
            }
        }
        else {
            "$part O"
        }
    }
    ($words -join "`n") + "`n"
}

# Different sentences, in the order in which they are drawn.
function Get-DifferentSentence([int] $Count, [System.Random] $Random, [string[]] $Pattern, [hashtable] $Name, [string[]] $Other) {
    $seen = [System.Collections.Generic.HashSet[string]]::new()
    while ($seen.Count -lt $Count) {
        $sentence = Get-Sentence -Random $Random -Pattern $Pattern -Name $Name
        if ($sentence -cnotin $Other) {
            $null = $seen.Add($sentence)
        }
    }

    $seen
}

$folder = (Resolve-Path -LiteralPath $Destination).ProviderPath
$allNames = @{}
foreach ($kind in $names.Keys) {
    $allNames[$kind] = $names[$kind] + $newNames[$kind] + $newNames[$kind]
}

$train = @(Get-DifferentSentence -Count $TrainCount -Random ([System.Random]::new($Seed)) -Pattern $patterns -Name $names)
$eval = @(Get-DifferentSentence -Count $EvalCount -Random ([System.Random]::new($Seed + 1)) -Pattern ($patterns + $newPatterns + $newPatterns) -Name $allNames -Other $train)
[System.IO.File]::WriteAllText("$folder/incidents.train.conll", ($train -join "`n"))
[System.IO.File]::WriteAllText("$folder/incidents.eval.conll", ($eval -join "`n"))
