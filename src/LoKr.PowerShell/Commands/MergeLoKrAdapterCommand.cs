using System.Management.Automation;
using LoKr.Core.Adapters;
using LoKr.Core.Merging;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Adds the deltas of adapters into the base weights, in memory, and passes the model on.</summary>
[Cmdlet(VerbsData.Merge, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel))]
public sealed class MergeLoKrAdapterCommand : ModelCommand
{
    /// <summary>Names of the adapters; without it the active ones. Wildcards are allowed.</summary>
    [Parameter(Position = 0)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[]? Name { get; set; }

    /// <summary>Refuse a result that is not finite, and leave the weights alone.</summary>
    [Parameter]
    public SwitchParameter Safe { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        string[]? names = Name is null ? null : [.. AdapterNames.Select(Model, Name).Select(adapter => adapter.Name)];
        if (ShouldProcess(Model.Name, $"Merge LoKr adapters {string.Join(", ", names ?? Model.ActiveAdapters)}"))
        {
            LoKrMergeResult result = Model.Merge(names, Safe);
            WriteVerbose($"Merged {string.Join(", ", result.Adapters)}: {result.ModuleCount} weights changed, {result.SavedModuleCount} modules replaced, {result.Elapsed.TotalSeconds:F2} s.");
        }

        WriteObject(Model);
    }
}
