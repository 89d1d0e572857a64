#Requires -Version 7.6

# What a scheduler starts every night. Export-LoKrSchedule writes such a script, and what starts it.
param([string] $Module = 'LoKr')

Import-Module -Name $Module
Invoke-LoKrJob -LiteralPath "$PSScriptRoot/tickets.job.psd1" -Exit
