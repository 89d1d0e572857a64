using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Compares two adapters: settings, shapes, the deltas of every layer, and with data the answers of the model.</summary>
[Cmdlet(VerbsData.Compare, "LoKrAdapter", DefaultParameterSetName = "Total")]
[OutputType(typeof(LoKrAdapterComparison), typeof(LoKrAnswerComparison), ParameterSetName = ["Total"])]
[OutputType(typeof(LoKrLayerComparison), ParameterSetName = ["Layer"])]
[OutputType(typeof(LoKrSettingDifference), ParameterSetName = ["Setting"])]
[OutputType(typeof(LoKrAnswerDifference), ParameterSetName = ["Row"])]
public sealed class CompareLoKrAdapterCommand : DataCommand
{
    /// <summary>The adapter that distances are relative to: the name of one on -Model, or a safetensors file or adapter folder.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string Reference { get; set; } = "";

    /// <summary>The other adapter: the name of one on -Model, or a safetensors file or adapter folder.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNullOrEmpty]
    public string Difference { get; set; } = "";

    /// <summary>The model or the pipeline with the adapters, or the one that answers with adapters from files.</summary>
    [Parameter(ValueFromPipeline = true)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public IAdaptable? Model { get; set; }

    /// <summary>Folder or safetensors file of the base model, which resolves names with underscores in files.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? BasePath { get; set; }

    /// <summary>Data files (.jsonl, .json, .csv, .tsv, .conll, also with .gz, and .parquet; wildcards are allowed), or rows as hashtables or objects: the model, -Model, answers them with each adapter alone.</summary>
    [Parameter(ParameterSetName = "Total")]
    [Parameter(Mandatory = true, ParameterSetName = "Row")]
    [SupportsWildcards]
    [ValidateNotNull]
    public object[]? Data { get; set; }

    /// <summary>Rows in a batch; it affects only speed and memory.</summary>
    [Parameter(ParameterSetName = "Total")]
    [Parameter(ParameterSetName = "Row")]
    [ValidateRange(1, int.MaxValue)]
    public int BatchSize { get; set; } = 16;

    /// <summary>Longest sequence in tokens; longer ones are cut. The default is the most that the model allows.</summary>
    [Parameter(ParameterSetName = "Total")]
    [Parameter(ParameterSetName = "Row")]
    public int? MaxLength { get; set; }

    /// <summary>Writes one object for each layer, and for each tensor of norms and of modules that were trained whole.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Layer")]
    public SwitchParameter ByLayer { get; set; }

    /// <summary>Writes one object for each setting that differs.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Setting")]
    public SwitchParameter Setting { get; set; }

    /// <summary>Writes one object for each row of the data with both answers, for a text classifier.</summary>
    [Parameter(Mandatory = true, ParameterSetName = "Row")]
    public SwitchParameter ByRow { get; set; }

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(Data is null ? Ignored($"without -{nameof(Data)}", nameof(BatchSize), nameof(MaxLength), nameof(Column), nameof(SkipInvalid)) : []);

    /// <inheritdoc/>
    protected override void Process()
    {
        EnsureRuntime();
        LoKrModel? answering = Data is null ? null : RequireModel();
        AdapterReference reference = Find(Reference);
        AdapterReference difference = Find(Difference);
        if (IsOnModel(Reference) && IsOnModel(Difference))
        {
            WriteWarnings(Ignored("on adapters of a model", nameof(BasePath)));
        }

        if (!ByRow)
        {
            AdapterComparison comparison = AdapterComparer.Compare(reference, difference, StopToken);
            WriteObject(ByLayer ? comparison.Layers : Setting ? comparison.Settings : comparison.Total, enumerateCollection: true);
        }

        if (Data is not null && answering is not null)
        {
            DataReading reading = BeginReading();
            AnswerComparison answers = AnswerComparer.Compare(answering, reference, difference, ReadRows(Data, reading), BatchSize, MaxLength, reading, StopToken);
            WriteWarnings(answers.Warnings);
            WriteObject(ByRow ? answers.Answers : answers.Total, enumerateCollection: true);
        }
    }

    private bool IsOnModel(string text) => Model?.GetAdapterNames().Contains(text, StringComparer.Ordinal) == true;

    private AdapterReference Find(string text) =>
        AdapterSource.Of(text).Find(Model, Paths, new() { BasePath = BasePath is null || IsOnModel(text) ? null : Paths.ExistingOne(BasePath) });

    private LoKrModel RequireModel() => Model as LoKrModel ?? throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
        Model is null ? "-Data was given without -Model." : $"A {Model.Name} has no answers to rows of data.", "Give the text classifier or language model that answers with -Model.");
}
