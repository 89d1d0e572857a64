using System.Management.Automation;
using System.Management.Automation.Host;

namespace LoKr.Shell;

/// <summary>Shows an error record: the command, the message with the advice, where it happened, and the id that scripts test.</summary>
internal static class ErrorPrinter
{
    /// <summary>Writes a record to the error stream of the host.</summary>
    public static void Print(PSHostUserInterface ui, ErrorRecord record)
    {
        string command = record.InvocationInfo?.MyCommand?.Name is { Length: > 0 } name ? $"{name}: " : "";
        string advice = record.ErrorDetails?.RecommendedAction is { Length: > 0 } action ? $" {action}" : "";
        ui.WriteErrorLine($"{command}{record.ErrorDetails?.Message ?? record.Exception.Message}{advice}");
        if (record.InvocationInfo is { ScriptLineNumber: > 0 } at)
        {
            string file = string.IsNullOrEmpty(at.ScriptName) ? "line " : $"{at.ScriptName}:";
            ui.WriteErrorLine($"  at {file}{at.ScriptLineNumber}: {at.Line.Trim()}");
        }

        ui.WriteErrorLine($"  {record.CategoryInfo.Category}, {record.FullyQualifiedErrorId}");
    }
}
