@{
    Severity            = @('Error', 'Warning', 'Information')
    IncludeDefaultRules = $true
    # The mark is for Windows PowerShell 5.1; the scripts need PowerShell 7.6, which reads UTF-8 without it.
    ExcludeRules        = @('PSUseBOMForUnicodeEncodedFile')
    Rules               = @{
        PSUseConsistentIndentation       = @{
            Enable              = $true
            IndentationSize     = 4
            PipelineIndentation = 'IncreaseIndentationForFirstPipeline'
            Kind                = 'space'
        }
        PSUseConsistentWhitespace        = @{
            Enable                                  = $true
            CheckInnerBrace                         = $true
            CheckOpenBrace                          = $true
            CheckOpenParen                          = $true
            CheckOperator                           = $true
            CheckPipe                               = $true
            CheckSeparator                          = $true
            IgnoreAssignmentOperatorInsideHashTable = $true
        }
        PSPlaceOpenBrace                 = @{ Enable = $true; OnSameLine = $true; NewLineAfter = $true; IgnoreOneLineBlock = $true }
        PSPlaceCloseBrace                = @{ Enable = $true; NewLineAfter = $true; IgnoreOneLineBlock = $true }
        PSAlignAssignmentStatement       = @{ Enable = $true; CheckHashtable = $true }
        PSUseCorrectCasing               = @{ Enable = $true }
        PSAvoidUsingCmdletAliases        = @{ Enable = $true }
        # The model is the natural subject of these two: `Import-LoKrModel ./folder`, `Add-LoKrAdapter $model`; build.ps1's
        # Invoke-Dotnet takes a command line.
        PSAvoidUsingPositionalParameters = @{
            Enable           = $true
            CommandAllowList = @('Add-LoKrAdapter', 'Import-LoKrModel', 'Invoke-Dotnet')
        }
        PSUseCompatibleSyntax            = @{ Enable = $true; TargetVersions = @('7.6') }
    }
}
