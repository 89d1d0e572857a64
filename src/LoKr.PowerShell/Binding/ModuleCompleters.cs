using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using LoKr.Core.Model;
using LoKr.Core.Targeting;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes names of modules of the model that the call works on; a word matches from any part of a name on.</summary>
public sealed class ModuleNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.MatchParts(LineModel.Find(commandAst, fakeBoundParameters) is IAdaptable model
            ? model.Models.Count == 1 ? model.GetModuleNames() : model.GetModules().Select(module => module.Name)
            : [], wordToComplete);
}

/// <summary>Completes class names of modules: those of the model that the call works on, or the usual ones.</summary>
public sealed class ModuleTypeCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(
            LineModel.Find(commandAst, fakeBoundParameters)?.GetModules().Select(module => module.ModuleType).Distinct().Order(StringComparer.Ordinal)
                ?? (IEnumerable<string>)["Conv2d", "Embedding", "LayerNorm", "Linear"],
            wordToComplete);
}

/// <summary>
/// Completes endings of names of modules that can be adapted: of the model in the line or of the folder of one, or the names that common
/// architectures use. A word with a dot completes longer endings.
/// </summary>
public class TargetModuleCompleter : IArgumentCompleter
{
    private static readonly string[] s_common =
    [
        "query", "key", "value", "dense", "q_lin", "k_lin", "v_lin", "out_lin",
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "to_q", "to_k", "to_v", "to_out.0",
    ];

    /// <inheritdoc/>
    public virtual IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(["all-linear", .. Endings(commandAst, fakeBoundParameters, wordToComplete)], wordToComplete);

    /// <summary>The endings that a word can be the beginning of.</summary>
    private protected static IEnumerable<string> Endings(CommandAst command, IDictionary bound, string? word)
    {
        IReadOnlyList<string> names = LineModel.ModuleNames(command, bound, adaptable: true);
        return names.Count == 0 ? s_common : ModuleEndings.Suggest(names, word);
    }
}

/// <summary>Completes a dictionary of values by pattern with one entry: <c>@{ query = 8 }</c>.</summary>
public sealed class ModulePatternCompleter : TargetModuleCompleter
{
    /// <inheritdoc/>
    public override IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        string word = wordToComplete.TrimStart('@', '{', ' ', '\'', '"');
        return Completion.OrWord(
            Endings(commandAst, fakeBoundParameters, word)
                .Where(ending => ending.StartsWith(word, StringComparison.OrdinalIgnoreCase))
                .Select(ending => new CompletionResult($"@{{ '{ending}' = 8 }}", ending, CompletionResultType.ParameterValue, ending)),
            wordToComplete);
    }
}

/// <summary>Completes endings of names of modules of any kind, those that hold others included; the heads that are usual without a model.</summary>
public sealed class SavedModuleCompleter : IArgumentCompleter
{
    private static readonly string[] s_heads = ["classifier", "score", "lm_head", "qa_outputs"];

    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters)
    {
        // A folder lacks the head that an import adds.
        IReadOnlyList<string> names = LineModel.ModuleNames(commandAst, fakeBoundParameters, adaptable: false);
        return Completion.Match(ModuleEndings.Suggest(names, wordToComplete).Union(s_heads, StringComparer.Ordinal), wordToComplete);
    }
}
