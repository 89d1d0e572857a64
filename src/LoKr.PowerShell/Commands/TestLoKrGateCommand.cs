using System.Management.Automation;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Decides whether a new adapter is better than the one in use, on the same rows.</summary>
[Cmdlet(VerbsDiagnostic.Test, "LoKrGate")]
[OutputType(typeof(LoKrGateResult))]
public sealed class TestLoKrGateCommand : DataCommand
{
    private static readonly GateOptions s_defaults = new();

    /// <summary>The text classifier or language model that answers the rows, without merged adapters.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>The adapter in use: the name of one on -Model, a safetensors file or adapter folder, a finished run, or a version of a registry. Without it, or with $null, the base model answers.</summary>
    [Parameter]
    [AllowNull]
    [AdapterSourceTransformation]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    public AdapterSource? Champion { get; set; }

    /// <summary>The new adapter, as -Champion.</summary>
    [Parameter(Mandatory = true)]
    [AdapterSourceTransformation]
    [ArgumentCompleter(typeof(AdapterNameCompleter))]
    [ValidateNotNull]
    public AdapterSource Challenger { get; set; } = null!;

    /// <summary>Data files (.jsonl, .json, .csv, .tsv, .conll, also with .gz, and .parquet; wildcards are allowed), or rows as hashtables or objects; best rows that neither adapter was trained on.</summary>
    [Parameter(Mandatory = true)]
    [SupportsWildcards]
    [ValidateNotNull]
    public object[] Data { get; set; } = [];

    /// <summary>The measure that is compared: Accuracy, ExactMatch, F1 (macro), MicroF1, WeightedF1, Precision, Recall (both macro), MatthewsCorrelation, EntityF1, EntityPrecision, EntityRecall, the same with Strict before it, RecallAt1, RecallAt10, MrrAt10, NdcgAt10, Spearman, Loss or Perplexity; the default is the measure of the task.</summary>
    [Parameter]
    public EvaluationMetric? Metric { get; set; }

    /// <summary>How much better the new adapter has to be, in units of -Metric.</summary>
    [Parameter]
    public double MinimumImprovement { get; set; } = s_defaults.MinimumImprovement;

    /// <summary>How much worse any one label may become, in units of -Metric; without it there is no such limit.</summary>
    [Parameter]
    public double? MaximumRegression { get; set; }

    /// <summary>How sure it has to be that the difference is not chance: the two-sided p-value is at most 1 less this value.</summary>
    [Parameter]
    public double Confidence { get; set; } = s_defaults.Confidence;

    /// <summary>Seed of the bootstrap: equal seeds and rows give equal verdicts.</summary>
    [Parameter]
    public long Seed { get; set; } = s_defaults.Seed;

    /// <summary>Rows in a batch; it affects only speed and memory.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int BatchSize { get; set; } = s_defaults.BatchSize;

    /// <summary>Longest sequence in tokens; longer ones are cut. The default is the most that the model allows.</summary>
    [Parameter]
    public int? MaxLength { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => Model?.SourcePath ?? Model?.Name;

    /// <inheritdoc/>
    protected override void Process()
    {
        GateOptions options = new()
        {
            Metric = Metric,
            MinimumImprovement = MinimumImprovement,
            MaximumRegression = MaximumRegression,
            Confidence = Confidence,
            Seed = Seed,
            BatchSize = BatchSize,
        };
        AdapterReference? champion = Champion?.Find(Model, Paths);
        AdapterReference challenger = Challenger.Find(Model, Paths);
        using ITrainingTask task = ReadTask(Model, Data, new TrainingOptions { MaxLength = MaxLength }, BeginReading());
        LoKrGateResult result = RunReported("Comparing adapters", static share => $"{share:P0}",
            (report, token) => PromotionGate.Evaluate(Model, champion, challenger, task, options, report, token));
        WriteWarnings(result.Warnings);
        WriteObject(result);
    }
}
