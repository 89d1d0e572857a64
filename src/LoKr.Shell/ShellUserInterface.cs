using System.Collections.ObjectModel;
using System.Globalization;
using System.Management.Automation;
using System.Management.Automation.Host;
using System.Security;

namespace LoKr.Shell;

/// <summary>Results to standard output; everything else to standard error, so that a redirected output holds results only.</summary>
internal sealed class ShellUserInterface : PSHostUserInterface
{
    private readonly ShellRawUserInterface _raw = new();

    /// <summary>The progress line.</summary>
    public ProgressPrinter Progress { get; } = new(Console.Error, !Console.IsErrorRedirected);

    /// <inheritdoc/>
    public override PSHostRawUserInterface RawUI => _raw;

    /// <inheritdoc/>
    public override bool SupportsVirtualTerminal => !Console.IsOutputRedirected && Environment.GetEnvironmentVariable("NO_COLOR") is null;

    /// <inheritdoc/>
    public override void Write(string value)
    {
        Progress.Clear();
        Console.Out.Write(GetOutputString(value, SupportsVirtualTerminal));
    }

    /// <inheritdoc/>
    public override void Write(ConsoleColor foregroundColor, ConsoleColor backgroundColor, string value) => Write(value);

    /// <inheritdoc/>
    public override void WriteLine(string value) => Write(value + Environment.NewLine);

    /// <inheritdoc/>
    public override void WriteErrorLine(string value) => WriteMessage(value, "31");

    /// <inheritdoc/>
    public override void WriteWarningLine(string message) => WriteMessage($"WARNING: {message}", "33");

    /// <inheritdoc/>
    public override void WriteVerboseLine(string message) => WriteMessage($"VERBOSE: {message}", "36");

    /// <inheritdoc/>
    public override void WriteDebugLine(string message) => WriteMessage($"DEBUG: {message}", "36");

    /// <inheritdoc/>
    public override void WriteInformation(InformationRecord record)
    {
        // Write-Host arrives through WriteLine already; other records are for those who redirect stream 6.
    }

    /// <inheritdoc/>
    public override void WriteProgress(long sourceId, ProgressRecord record) => Progress.Write(record);

    /// <inheritdoc/>
    public override string ReadLine() => Console.In.ReadLine() ?? "";

    /// <inheritdoc/>
    public override SecureString ReadLineAsSecureString() => throw new NotSupportedException("LoKr.Shell does not read secrets.");

    /// <inheritdoc/>
    public override Dictionary<string, PSObject> Prompt(string caption, string message, Collection<FieldDescription> descriptions)
    {
        // A missing mandatory parameter: asking would hang an unattended run, and pwsh -NonInteractive fails the same way.
        throw new HostException($"Give a value for: {string.Join(", ", descriptions.Select(field => field.Name))}. LoKr.Shell does not ask for parameters.");
    }

    /// <inheritdoc/>
    public override int PromptForChoice(string caption, string message, Collection<ChoiceDescription> choices, int defaultChoice)
    {
        while (true)
        {
            WriteMessage($"{caption}{Environment.NewLine}{message}", null);
            string list = string.Join("  ", choices.Select((choice, index) => string.Create(CultureInfo.CurrentCulture, $"[{index}] {choice.Label.Replace("&", "", StringComparison.Ordinal)}")));
            WriteMessage(string.Create(CultureInfo.CurrentCulture, $"{list} (default {defaultChoice}): "), null);
            string? answer = Console.In.ReadLine();
            if (string.IsNullOrWhiteSpace(answer))
            {
                return defaultChoice >= 0 || answer is not null ? defaultChoice : throw new HostException("There is nobody to answer; use -Confirm:$false.");
            }

            int chosen = int.TryParse(answer, CultureInfo.CurrentCulture, out int number) && number >= 0 && number < choices.Count
                ? number
                : choices.ToList().FindIndex(choice => choice.Label.Replace("&", "", StringComparison.Ordinal).StartsWith(answer.Trim(), StringComparison.CurrentCultureIgnoreCase));
            if (chosen >= 0)
            {
                return chosen;
            }
        }
    }

    /// <inheritdoc/>
    public override PSCredential PromptForCredential(string caption, string message, string userName, string targetName) =>
        throw new NotSupportedException("LoKr.Shell does not ask for credentials.");

    /// <inheritdoc/>
    public override PSCredential PromptForCredential(
        string caption, string message, string userName, string targetName, PSCredentialTypes allowedCredentialTypes, PSCredentialUIOptions options) =>
        throw new NotSupportedException("LoKr.Shell does not ask for credentials.");

    private void WriteMessage(string text, string? color)
    {
        Progress.Clear();
        bool colored = color is not null && !Console.IsErrorRedirected && Environment.GetEnvironmentVariable("NO_COLOR") is null;
        Console.Error.WriteLine(colored ? $"\u001b[{color}m{text}\u001b[0m" : text);
    }
}
