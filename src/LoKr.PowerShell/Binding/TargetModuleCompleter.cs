using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes target modules: the names that common architectures use, and all-linear.</summary>
public sealed class TargetModuleCompleter : IArgumentCompleter
{
    private static readonly string[] s_common =
    [
        "all-linear", "query", "key", "value", "dense", "q_lin", "k_lin", "v_lin", "out_lin",
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ];

    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(s_common, wordToComplete);
}
