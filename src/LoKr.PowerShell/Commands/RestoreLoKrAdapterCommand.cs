using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Lets an alias of a registry mean the version again that it meant before.</summary>
[Cmdlet(VerbsData.Restore, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrAdapterVersion))]
public sealed class RestoreLoKrAdapterCommand : RegistryCommand
{
    /// <summary>The alias.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string Alias { get; set; } = "champion";

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        AdapterRegistry registry = OpenRegistry();
        if (ShouldProcess(registry.Path, FormattableString.Invariant($"Let '{Alias}' of '{Name}' mean version {registry.PlanRestore(Name, Alias)} again")))
        {
            WriteObject(registry.Restore(Name, Alias));
        }
    }
}
