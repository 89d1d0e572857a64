using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes names of modules of the model that the call works on.</summary>
public sealed class ModuleNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.BoundModel(commandAst, fakeBoundParameters) is { } model
            ? Completion.Match(model.GetModules().Select(module => module.Name), wordToComplete)
            : [];
}
