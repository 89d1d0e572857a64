using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using System.Management.Automation.Runspaces;
using LoKr.Core.Runs;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes names of adapters in the registry of the call.</summary>
public sealed class RegistryNameCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        fakeBoundParameters["Registry"] is string registry && Runspace.DefaultRunspace?.SessionStateProxy.Path.CurrentFileSystemLocation.Path is string location
            ? Completion.Match(new AdapterRegistry(Path.Combine(location, registry)).FindNames(Begins(wordToComplete)), wordToComplete)
            : [];

    // Before each name is looked up on the disk: a registry may have ten thousand.
    private static Func<string, bool> Begins(string? word) => WildcardPattern.Get($"{(word ?? "").Trim('\'', '"')}*", WildcardOptions.IgnoreCase).IsMatch;
}
