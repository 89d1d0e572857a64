using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that work with a registry of adapters.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class RegistryCommand : LoKrCommand
{
    /// <summary>Folder of the registry.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(FolderCompleter))]
    public string Registry { get; set; } = "";

    /// <summary>Name of the adapter in the registry.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipelineByPropertyName = true)]
    [ArgumentCompleter(typeof(RegistryNameCompleter))]
    [ValidateNotNullOrEmpty]
    public virtual string Name { get; set; } = "";

    /// <inheritdoc/>
    protected override string? Subject => Name;

    /// <summary>The registry.</summary>
    private protected AdapterRegistry OpenRegistry() => new(Paths.New(Registry));
}
