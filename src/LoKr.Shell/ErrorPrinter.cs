using System.Management.Automation;
using System.Management.Automation.Host;

namespace LoKr.Shell;

/// <summary>Shows an error record: the command, the message, where it happened, and the id that scripts test.</summary>
internal static class ErrorPrinter
{
    /// <summary>Writes a record to the error stream of the host.</summary>
    public static void Print(PSHostUserInterface ui, ErrorRecord record)
    {
        string command = record.InvocationInfo?.MyCommand?.Name is { Length: > 0 } name ? $"{name}: " : "";
        ui.WriteErrorLine($"{command}{record.ErrorDetails?.Message ?? record.Exception.Message}");
        if (record.InvocationInfo is { ScriptLineNumber: > 0 } at)
        {
            string file = string.IsNullOrEmpty(at.ScriptName) ? "line " : $"{at.ScriptName}:";
            ui.WriteErrorLine($"  at {file}{at.ScriptLineNumber}: {at.Line.Trim()}");
        }

        ui.WriteErrorLine($"  {record.CategoryInfo.Category}, {record.FullyQualifiedErrorId}");
    }
}
