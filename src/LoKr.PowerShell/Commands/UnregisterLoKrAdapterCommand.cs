using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Removes versions from a registry: one, or all but the last ones and those in use.</summary>
[Cmdlet(VerbsLifecycle.Unregister, "LoKrAdapter", DefaultParameterSetName = VersionSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class UnregisterLoKrAdapterCommand : RegistryCommand
{
    private const string VersionSet = "Version";
    private const string KeepSet = "Keep";

    /// <summary>Number of the version.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipelineByPropertyName = true, ParameterSetName = VersionSet)]
    public int Version { get; set; }

    /// <summary>Number of the last versions that stay, beside those that an alias means, the one before, and those that they came from.</summary>
    [Parameter(Mandatory = true, ParameterSetName = KeepSet)]
    [ValidateRange(0, int.MaxValue)]
    public int Keep { get; set; }

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        AdapterRegistry registry = OpenRegistry();
        IReadOnlyList<int> versions = ParameterSetName == KeepSet ? registry.PlanRetention(Name, Keep) : [Version];
        foreach (int version in versions)
        {
            ForOne(Name, () =>
            {
                registry.CheckUnregister(Name, version);
                if (ShouldProcess(registry.Path, FormattableString.Invariant($"Remove version {version} of '{Name}'")))
                {
                    registry.Unregister(Name, version);
                }
            });
        }
    }
}
