using System.Collections;
using System.Globalization;
using System.Management.Automation;
using System.Management.Automation.Language;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Runs;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes folders, where no file is wanted.</summary>
public sealed class FolderCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.OrWord(CompletionCompleters.CompleteFilename(wordToComplete).Where(result => result.ResultType == CompletionResultType.ProviderContainer), wordToComplete);
}

/// <summary>Completes folders and files of weights.</summary>
public sealed class ModelPathCompleter : IArgumentCompleter
{
    private static readonly string[] s_extensions = [".safetensors", ".safetensors.index.json", ".gguf"];

    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.OrWord(CompletionCompleters.CompleteFilename(wordToComplete).Where(static result => result.ResultType == CompletionResultType.ProviderContainer
            || Array.Exists(s_extensions, extension => result.ListItemText.EndsWith(extension, StringComparison.OrdinalIgnoreCase))), wordToComplete);
}

/// <summary>
/// Completes run folders, and folders with runs in them; the state of a run is the tool tip. Where there are none, any folder will do: the run
/// may be further down, or still to come.
/// </summary>
public sealed class RunCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        CompletionResult[] folders = [.. new FolderCompleter().CompleteArgument(commandName, parameterName, wordToComplete, commandAst, fakeBoundParameters)];
        CompletionResult[] runs = [.. folders.Select(Describe).OfType<CompletionResult>()];
        return runs.Length > 0 ? runs : folders;
    }

    private static CompletionResult? Describe(CompletionResult folder)
    {
        if (SessionPaths.Find(folder.ToolTip) is not string path || !Directory.Exists(path))
        {
            return null;
        }

        RunFolder run = new(path);
        try
        {
            return run.Exists ? new(folder.CompletionText, folder.ListItemText, folder.ResultType, Text(run.Read()))
                : Directory.EnumerateDirectories(path).Any(static inner => new RunFolder(inner).Exists) ? folder
                : null;
        }
        catch (Exception exception) when (exception is LoKrException or IOException or UnauthorizedAccessException)
        {
            // A damaged run is a run, of which the command says what is wrong.
            return folder;
        }
    }

    private static string Text(LoKrRun run) => string.Create(CultureInfo.InvariantCulture, $"{run.State}, step {run.Step} of {run.TotalSteps}");
}

/// <summary>Completes paths for the parameter that the cmdlets which read files or folders share: folders only for those that read folders, runs for those that read runs, and job files for those that read jobs.</summary>
public sealed class PathCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Find(commandName)?.CompleteArgument(commandName, parameterName, wordToComplete, commandAst, fakeBoundParameters)
            ?? CompletionCompleters.CompleteFilename(wordToComplete);

    private static IArgumentCompleter? Find(string command) =>
        command.EndsWith("Import-LoKrModel", StringComparison.OrdinalIgnoreCase) ? new FolderCompleter()
        : command.EndsWith("-LoKrRun", StringComparison.OrdinalIgnoreCase) ? new RunCompleter()
        : command.EndsWith("-LoKrJob", StringComparison.OrdinalIgnoreCase) ? new JobFileCompleter()
        : command.EndsWith("-LoKrSubmission", StringComparison.OrdinalIgnoreCase) ? new FolderCompleter()
        : null;
}

/// <summary>Completes job files, and folders that may have some.</summary>
public sealed class JobFileCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.OrWord(CompletionCompleters.CompleteFilename(wordToComplete)
            .Where(static result => result.ResultType == CompletionResultType.ProviderContainer || Path.GetExtension(result.ListItemText) is ".psd1" or ".json"), wordToComplete);
}

/// <summary>Completes labels: those of the data files that the line names.</summary>
public sealed class LabelCompleter : IArgumentCompleter
{
    // In bytes: a larger file would take longer than a key press may.
    private const long LargestFile = 8 << 20;

    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(
            LineModel.Paths(commandAst).SelectMany(Labels).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal), wordToComplete);

    // A file that is not data, or cannot be read, has no labels to offer, and the command that reads it will say why.
    private static IEnumerable<string> Labels(string path)
    {
        try
        {
            return new FileInfo(path) is { Exists: true, Length: <= LargestFile }
                ? [.. DataReader.ReadFile(path).SelectMany(RowFields.LabelNames).Distinct(StringComparer.Ordinal)]
                : [];
        }
        catch (LoKrException)
        {
            return [];
        }
    }
}

/// <summary>Paths as the session understands them, outside a cmdlet.</summary>
internal static class SessionPaths
{
    private static readonly ScriptBlock s_resolve = ScriptBlock.Create("param($path) $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($path)");

    /// <summary>Full path of a word; null for one that is not a path of the file system.</summary>
    public static string? Find(string word)
    {
        try
        {
            return s_resolve.InvokeReturnAsIs(word)?.ToString();
        }
        catch (RuntimeException)
        {
            // Most words of a line are not paths: an unknown drive, a character that no path has.
            return null;
        }
    }
}
