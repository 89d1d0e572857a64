using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Lists the versions of adapters in a registry, the last one first.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrAdapterVersion")]
[OutputType(typeof(LoKrAdapterVersion))]
public sealed class GetLoKrAdapterVersionCommand : RegistryCommand
{
    /// <summary>Name of the adapter in the registry; without it all of them. Wildcards are allowed.</summary>
    [Parameter(Position = 0, ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(RegistryNameCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public override string Name { get; set; } = "*";

    /// <summary>Only the version that this alias means.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Alias { get; set; }

    /// <summary>Only the version of this number.</summary>
    [Parameter]
    public int? Version { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        AdapterRegistry registry = OpenRegistry();
        WildcardPattern pattern = new(Name, WildcardOptions.IgnoreCase);
        string[] names = WildcardPattern.ContainsWildcardCharacters(Name) ? [.. registry.FindNames(pattern.IsMatch)] : [Name];
        foreach (string name in names)
        {
            ForOne(name, () => WriteObject(Select(registry, name), enumerateCollection: true));
        }
    }

    private IEnumerable<LoKrAdapterVersion> Select(AdapterRegistry registry, string name) =>
        Alias is not null ? [registry.Get(name, Alias)] : Version is int version ? [registry.Get(name, version)] : registry.GetVersions(name);
}
