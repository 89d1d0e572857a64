using System.Management.Automation.Language;

namespace LoKr.PowerShell.Hosting;

/// <summary>The PowerShell script that does one job of a list, which an index chooses.</summary>
internal static class JobArrayScript
{
    /// <summary>The script.</summary>
    /// <param name="module">Name or path of the module.</param>
    /// <param name="list">Name of the file beside the script that has a job file a line.</param>
    /// <param name="index">An expression for the number of the line, from 1, where the script is not given it.</param>
    /// <param name="result">An expression for the file of the result; null for none.</param>
    public static string Create(string module, string list, string? index, string? result) => $$"""
        # Does one job of the list beside it, and ends with its exit code.
        param({{(index is null ? "[Parameter(Mandatory)] [int] $Index" : $"[int] $Index = {index}")}})
        $ErrorActionPreference = 'Stop'
        Import-Module -Name {{Quote(module)}}
        $job = @(Get-Content -LiteralPath (Join-Path $PSScriptRoot {{Quote(list)}}))[$Index - 1]
        Invoke-LoKrJob -LiteralPath $job{{(result is null ? "" : $" -ResultPath {result}")}} -Exit

        """;

    /// <summary>A text of PowerShell.</summary>
    public static string Quote(string text) => $"'{CodeGeneration.EscapeSingleQuotedStringContent(text)}'";
}
