using System.Management.Automation;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Describes adapter files of any layout from their headers, or the adapters of a model in memory.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrAdapter", DefaultParameterSetName = "Path")]
[OutputType(typeof(LoKrAdapterInfo), ParameterSetName = ["Path", "LiteralPath"])]
[OutputType(typeof(LoKrAdapterStatus), ParameterSetName = ["Model"])]
[OutputType(typeof(LoKrLayerStatus), ParameterSetName = ["Layer"])]
[OutputType(typeof(LoKrModelStatus), ParameterSetName = ["Summary"])]
public sealed class GetLoKrAdapterCommand : PathCommand
{
    /// <summary>Safetensors files, or adapter folders. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = "Path")]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Path { get; set; } = [];

    /// <summary>Safetensors files, or adapter folders, taken as they are written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = "LiteralPath")]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>Layout of the files, where the names of their tensors mislead.</summary>
    [Parameter(ParameterSetName = "Path")]
    [Parameter(ParameterSetName = "LiteralPath")]
    public AdapterLayout? SourceFormat { get; set; }

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Model")]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Layer")]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = "Summary")]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>Names of adapters of the model; all without it. Wildcards are allowed.</summary>
    [Parameter(ParameterSetName = "Model")]
    [Parameter(ParameterSetName = "Layer")]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[]? Name { get; set; }

    /// <summary>One line for each adapted layer instead: what PEFT's get_layer_status gives.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Layer")]
    public SwitchParameter ByLayer { get; set; }

    /// <summary>One object for the whole model instead: what PEFT's get_model_status gives.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Summary")]
    public SwitchParameter Summary { get; set; }

    /// <inheritdoc/>
    protected override void Process()
    {
        switch (ParameterSetName)
        {
            case "Model":
                HashSet<string> chosen = [.. AdapterNames.Select(Model, Name).Select(adapter => adapter.Name)];
                WriteObject(Model.GetAdapterStatus().Where(adapter => chosen.Contains(adapter.Name)), enumerateCollection: true);
                break;
            case "Layer":
                HashSet<string> wanted = [.. AdapterNames.Select(Model, Name).Select(adapter => adapter.Name)];
                WriteObject(Model.GetLayerStatus().Where(layer => layer.AvailableAdapters.Any(wanted.Contains)), enumerateCollection: true);
                break;
            case "Summary":
                WriteObject(Model.GetModelStatus());
                break;
            default:
                Inspect();
                break;
        }
    }

    private void Inspect()
    {
        bool literal = ParameterSetName == "LiteralPath";
        foreach (string path in ResolveExisting(literal ? LiteralPath : Path, literal))
        {
            ForOne(path, () => WriteObject(AdapterInspector.Inspect(path, SourceFormat)));
        }
    }
}
