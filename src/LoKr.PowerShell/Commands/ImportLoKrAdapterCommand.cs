using System.Management.Automation;
using LoKr.Core.Adapters;
using LoKr.Core.Formats;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using TorchSharp;

namespace LoKr.PowerShell.Commands;

/// <summary>Loads an adapter that PEFT or Export-LoKrAdapter saved, and passes the model on.</summary>
[Cmdlet(VerbsData.Import, "LoKrAdapter", DefaultParameterSetName = "Path", SupportsShouldProcess = true)]
[OutputType(typeof(LoKrModel))]
public sealed class ImportLoKrAdapterCommand : ModelCommand
{
    /// <summary>Folder with adapter_config.json and adapter_model.safetensors. Wildcards are allowed where they match one folder.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>Folder, taken as it is written.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath")]
    [ValidateNotNullOrEmpty]
    public string LiteralPath { get; set; } = "";

    /// <summary>Name that the adapter gets in this model.</summary>
    [Parameter]
    [ValidateNotNull]
    public string Name { get; set; } = "default";

    /// <summary>The adapter is to be trained further; otherwise it takes no gradients.</summary>
    [Parameter]
    public SwitchParameter Trainable { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        bool literal = ParameterSetName == "LiteralPath";
        string folder = OnlyOne(literal ? LiteralPath : Path, literal);
        if (ShouldProcess(Model.Name, $"Import LoKr adapter '{Name}' from {folder}"))
        {
            EnsureRuntime();
            LoKrAdapter adapter = Load(folder);
            foreach (string warning in adapter.Warnings)
            {
                WriteWarning(warning);
            }

            WriteVerbose($"Adapter '{Name}' on {adapter.Layers.Count} modules; {Model.CountParameters()}.");
        }

        WriteObject(Model);
    }

    private LoKrAdapter Load(string folder)
    {
        using PeftAdapterFolder saved = PeftAdapterFolder.Read(folder);
        foreach (string warning in saved.Warnings)
        {
            WriteWarning(warning);
        }

        using DisposeScope scope = torch.NewDisposeScope();
        Dictionary<string, torch.Tensor> tensors = saved.Tensors.Entries.Keys.ToDictionary(name => name, name => saved.Tensors.Read(name), StringComparer.Ordinal);
        return Model.LoadAdapter(saved.Config with { InferenceMode = !Trainable }, tensors, Name, Trainable);
    }
}
