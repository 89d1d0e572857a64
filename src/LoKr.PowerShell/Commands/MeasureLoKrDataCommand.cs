using System.Collections;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Measures text data before a model is trained on it: duplicates, leaks, labels, lengths, and what changed since earlier data.</summary>
[Cmdlet(VerbsDiagnostic.Measure, "LoKrData")]
[OutputType(typeof(LoKrDataSummary))]
public sealed class MeasureLoKrDataCommand : DataCommand
{
    /// <summary>Data files (.jsonl, .json, .csv, .tsv, .conll, also with .gz, and .parquet; wildcards are allowed), or rows as hashtables or objects.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [SupportsWildcards]
    [ValidateNotNull]
    public object[] Data { get; set; } = [];

    /// <summary>Earlier data, as -Data, whose labels and lengths are those to expect.</summary>
    [Parameter]
    [SupportsWildcards]
    [ValidateNotNull]
    public object[]? Reference { get; set; }

    /// <summary>Validation data, as -Data: rows that are in both are counted.</summary>
    [Parameter]
    [SupportsWildcards]
    [ValidateNotNull]
    public object[]? ValidationData { get; set; }

    /// <summary>A text classifier or language model, or the folder of one: its tokenizer counts tokens. The weights of a folder are not read.</summary>
    [Parameter]
    [ModelSourceTransformation]
    [ValidateNotNull]
    public ModelSource? Model { get; set; }

    /// <summary>Longest sequence in tokens; longer ones are counted as cut. The default is the most that the model allows.</summary>
    [Parameter]
    public int? MaxLength { get; set; }

    /// <summary>The most that is allowed of a finding, for example @{ Duplicates = 0.01; Shared = 0; NewLabels = 0; LabelShift = 0.25 }. More is an error with an id of its own.</summary>
    [Parameter]
    [ValidateNotNull]
    public Hashtable Threshold { get; set; } = [];

    /// <inheritdoc/>
    protected override void Begin() => WriteWarnings(Model is null ? Ignored($"without -{nameof(Model)}", nameof(MaxLength)) : []);

    /// <inheritdoc/>
    protected override void Process()
    {
        IReadOnlyDictionary<DataFindingKind, double> thresholds = ReadThresholds();
        LoKrModel? model = OpenModel();
        try
        {
            DataMeasureOptions options = new()
            {
                Reference = Read(Reference),
                Validation = Read(ValidationData),
                Model = model,
                MaxLength = model is null ? null : MaxLength,
                Reading = BeginReading(),
                Thresholds = thresholds,
            };
            IReadOnlyList<DataRow> rows = Read(Data)!;
            LoKrDataSummary summary = RunReported("Measuring data", share => $"{share:P0} of {rows.Count} rows", (report, token) => DataMeasurement.Measure(rows, options, report, token));
            WriteObject(summary);
            foreach (LoKrDataFinding finding in summary.Findings.Where(static finding => finding.IsExceeded))
            {
                ForOne(finding.Kind, () => throw finding.ToException());
            }
        }
        finally
        {
            if (Model?.IsFolder == true)
            {
                model?.Dispose();
            }
        }
    }

    private IReadOnlyList<DataRow>? Read(object[]? data)
    {
        if (data is null)
        {
            return null;
        }

        DataReading reading = BeginReading();
        IReadOnlyList<DataRow> rows = ReadRows(data, reading);
        WriteWarnings(reading.Warnings);
        return rows;
    }

    private LoKrModel? OpenModel()
    {
        if (Model is null)
        {
            return null;
        }

        EnsureRuntime();
        return Model.OpenWithTokenizer(Paths) as LoKrModel ?? throw new LoKrException(ErrorIds.TaskUnknown, LoKrErrorKind.InvalidArgument,
            $"A {Model} is not a model of texts.", "Give a text classifier or a language model, or the folder of one.");
    }

    private Dictionary<DataFindingKind, double> ReadThresholds()
    {
        Dictionary<DataFindingKind, double> thresholds = [];
        foreach (DictionaryEntry entry in Threshold)
        {
            string name = Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!;
            if (!Enum.TryParse(name, ignoreCase: true, out DataFindingKind kind) || !Enum.IsDefined(kind) || int.TryParse(name, CultureInfo.InvariantCulture, out _))
            {
                throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                    $"-{nameof(Threshold)} names '{name}'.", $"The findings are {string.Join(", ", Enum.GetNames<DataFindingKind>())}.") { Target = name };
            }

            thresholds[kind] = LanguagePrimitives.ConvertTo<double>(entry.Value);
        }

        return thresholds;
    }
}
