using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Lets an alias of a registry mean a version, in one step.</summary>
[Cmdlet(VerbsData.Publish, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrAdapterVersion))]
public sealed class PublishLoKrAdapterCommand : RegistryCommand
{
    /// <summary>Number of the version; the default is the last one.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    public int? Version { get; set; }

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
        if (ShouldProcess(registry.Path, FormattableString.Invariant($"Let '{Alias}' of '{Name}' mean version {registry.PlanPublication(Name, Version, Alias)}")))
        {
            WriteObject(registry.Publish(Name, Version, Alias));
        }
    }
}
