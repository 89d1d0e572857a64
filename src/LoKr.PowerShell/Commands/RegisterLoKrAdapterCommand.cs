using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Adds a version of an adapter to a registry.</summary>
[Cmdlet(VerbsLifecycle.Register, "LoKrAdapter", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrAdapterVersion))]
public sealed class RegisterLoKrAdapterCommand : RegistryCommand
{
    /// <summary>A finished run folder, or a folder of an adapter as PEFT stores it.</summary>
    [Parameter(Mandatory = true, Position = 1, ValueFromPipeline = true, ValueFromPipelineByPropertyName = true)]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Name of the adapter in the registry.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ArgumentCompleter(typeof(RegistryNameCompleter))]
    [ValidateNotNullOrEmpty]
    public override string Name { get; set; } = "";

    /// <summary>The version that it was trained from, or that was in use when it was trained; the default is the champion.</summary>
    [Parameter]
    public int? Parent { get; set; }

    /// <summary>A note for people.</summary>
    [Parameter]
    public string? Description { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => Path;

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        AdapterRegistry registry = OpenRegistry();
        string path = Paths.ExistingOne(Path, literal: true);
        if (ShouldProcess(registry.Path, $"Register '{path}' as a version of '{Name}'"))
        {
            WriteObject(registry.Register(Name, path, new() { Parent = Parent ?? registry.Find(Name)?.Version, Description = Description }));
        }
    }
}
