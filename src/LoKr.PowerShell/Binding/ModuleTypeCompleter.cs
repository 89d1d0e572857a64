using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes class names of modules: those of the model that the call works on, or the usual ones.</summary>
public sealed class ModuleTypeCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(
            Completion.BoundModel(commandAst, fakeBoundParameters)?.GetModules().Select(module => module.ModuleType).Distinct().Order(StringComparer.Ordinal)
                ?? (IEnumerable<string>)["Conv2d", "Embedding", "LayerNorm", "Linear"],
            wordToComplete);
}
