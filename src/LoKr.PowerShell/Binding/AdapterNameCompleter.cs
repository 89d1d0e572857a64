using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes names of adapters of the model that the call works on.</summary>
public sealed class AdapterNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.BoundModel(commandAst, fakeBoundParameters) is { } model
            ? Completion.Match(model.Adapters.Select(adapter => adapter.Name), wordToComplete)
            : [];
}
