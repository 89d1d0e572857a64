using System.Collections;
using System.Management.Automation;
using System.Management.Automation.Language;
using LoKr.Core.Runtime;

namespace LoKr.PowerShell.Binding;

/// <summary>Completes devices: those of the loaded runtime, or the usual spellings while none is loaded.</summary>
public sealed class DeviceCompleter : IArgumentCompleter
{
    /// <inheritdoc/>
    public IEnumerable<CompletionResult> CompleteArgument(
        string commandName, string parameterName, string wordToComplete, CommandAst commandAst, IDictionary fakeBoundParameters) =>
        Completion.Match(TorchRuntime.Current is { } runtime ? ["auto", .. runtime.Devices] : ["auto", "cpu", "cuda", "cuda:0"], wordToComplete);
}
