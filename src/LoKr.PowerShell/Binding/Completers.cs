using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using LoKr.Core.Model;
using LoKr.Core.Runtime;

namespace LoKr.PowerShell.Binding;

/// <summary>Candidates of all completers.</summary>
internal static class Completion
{
    /// <summary>Candidates that begin with a word, quoted where they need it. A word that begins none is left as it is, so that no file names take their place.</summary>
    public static IEnumerable<CompletionResult> Match(IEnumerable<string> candidates, string? word) =>
        OrWord(Matching(candidates, word, static (candidate, pattern) => pattern.IsMatch(candidate)), word);

    /// <summary>Candidates of which any part between dots begins with a word.</summary>
    public static IEnumerable<CompletionResult> MatchParts(IEnumerable<string> candidates, string? word) =>
        OrWord(Matching(candidates, word, static (candidate, pattern) => Parts(candidate).Any(pattern.IsMatch)), word);

    /// <summary>The results; the word itself if there is none.</summary>
    public static IEnumerable<CompletionResult> OrWord(IEnumerable<CompletionResult> results, string? word)
    {
        CompletionResult[] all = [.. results];
        return all.Length > 0 || string.IsNullOrEmpty(word) ? all : [new CompletionResult(word, word, CompletionResultType.ParameterValue, word)];
    }

    private static IEnumerable<CompletionResult> Matching(IEnumerable<string> candidates, string? word, Func<string, WildcardPattern, bool> matches)
    {
        WildcardPattern pattern = WildcardPattern.Get($"{(word ?? "").Trim('\'', '"')}*", WildcardOptions.IgnoreCase);
        foreach (string candidate in candidates.Where(candidate => matches(candidate, pattern)))
        {
            bool plain = candidate.All(c => char.IsLetterOrDigit(c) || c is '_' or '.' or '-' or ':');
            yield return new CompletionResult(
                plain ? candidate : $"'{candidate.Replace("'", "''", StringComparison.Ordinal)}'",
                candidate, CompletionResultType.ParameterValue, candidate);
        }
    }

    private static IEnumerable<string> Parts(string name)
    {
        yield return name;
        for (int dot = name.IndexOf('.', StringComparison.Ordinal); dot >= 0; dot = name.IndexOf('.', dot + 1))
        {
            yield return name[(dot + 1)..];
        }
    }
}

/// <summary>Completes names of adapters of the model that the call works on.</summary>
public sealed class AdapterNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(LineModel.Find(commandAst, fakeBoundParameters)?.GetAdapterNames() ?? [], wordToComplete);
}

/// <summary>Completes devices: those of the loaded runtime, or the usual spellings while none is loaded.</summary>
public sealed class DeviceCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(TorchRuntime.Current is { } runtime ? ["auto", .. runtime.Devices] : ["auto", "cpu", "cuda", "cuda:0"], wordToComplete);
}
