using System.Management.Automation;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Describes adapter files of any layout from their headers, or the adapters of a model in memory.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrAdapter", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrAdapterInfo), typeof(LoKrLayerValues), ParameterSetName = [PathSet, LiteralPathSet])]
[OutputType(typeof(LoKrAdapterStatus), ParameterSetName = [ModelSet])]
[OutputType(typeof(LoKrLayerStatus), typeof(LoKrLayerValues), ParameterSetName = [LayerSet])]
[OutputType(typeof(LoKrModelStatus), ParameterSetName = [SummarySet])]
public sealed class GetLoKrAdapterCommand : PathCommand
{
    private const string ModelSet = "Model";
    private const string LayerSet = "Layer";
    private const string SummarySet = "Summary";

    /// <summary>Layout of the files; it overrides the one that the names of their tensors suggest.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public AdapterLayout? SourceFormat { get; set; }

    /// <summary>The model or the pipeline: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = ModelSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = LayerSet)]
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = SummarySet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable Model { get; set; } = null!;

    /// <summary>Names of adapters of the model; without it all of them. Wildcards are allowed.</summary>
    [Parameter(ParameterSetName = ModelSet)]
    [Parameter(ParameterSetName = LayerSet)]
    [SupportsWildcards]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string[]? Name { get; set; }

    /// <summary>Writes one object for each adapted layer instead, as PEFT's get_layer_status does. For files these are the measures of -Values.</summary>
    [Parameter(Mandatory = true, ParameterSetName = LayerSet)]
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public SwitchParameter ByLayer { get; set; }

    /// <summary>With -ByLayer: measures what the factors of each layer hold: norms, singular values, effective rank.</summary>
    [Parameter(ParameterSetName = LayerSet)]
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    public SwitchParameter Values { get; set; }

    /// <summary>Folder or safetensors file of the base model: relates the norms of -Values to its weights, and resolves names with underscores.</summary>
    [Parameter(ParameterSetName = PathSet)]
    [Parameter(ParameterSetName = LiteralPathSet)]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Writes one object for the whole model instead, as PEFT's get_model_status does.</summary>
    [Parameter(Mandatory = true, ParameterSetName = SummarySet)]
    public SwitchParameter Summary { get; set; }

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(ByLayer || Values ? [] : Ignored($"without -{nameof(Values)}", nameof(BasePath)));

    /// <inheritdoc/>
    protected override void Process()
    {
        switch (ParameterSetName)
        {
            case ModelSet:
                HashSet<string> names = SelectedNames();
                WriteObject(Model.GetAdapterStatus().Where(adapter => names.Contains(adapter.Name)), enumerateCollection: true);
                break;
            case LayerSet when Values:
                EnsureRuntime();
                foreach (string name in SelectEach(Model, Name, AdapterNames.Select))
                {
                    WriteObject(AdapterValues.Measure(AdapterReference.OfModel(Model, name), StopToken), enumerateCollection: true);
                }

                break;
            case LayerSet:
                HashSet<string> selected = SelectedNames();
                WriteObject(Model.GetLayerStatus().Where(layer => layer.AvailableAdapters.Any(selected.Contains)), enumerateCollection: true);
                break;
            case SummarySet:
                WriteObject(Model.GetModelStatus());
                break;
            default:
                if (ByLayer || Values)
                {
                    EnsureRuntime();
                    string? basePath = BasePath is null ? null : Paths.ExistingOne(BasePath);
                    ForEachPath(path => WriteObject(
                        AdapterValues.Measure(AdapterReference.OfFile(path, new() { Read = new() { Layout = SourceFormat }, BasePath = basePath }), StopToken), enumerateCollection: true));
                    break;
                }

                ForEachPath(path => WriteObject(AdapterInspector.Inspect(path, SourceFormat)));
                break;
        }
    }

    private HashSet<string> SelectedNames() => [.. SelectEach(Model, Name, AdapterNames.Select)];
}
