using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Distributed;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Measures a model on data: loss, and the measures of classification, of entities, of a search, or perplexity.</summary>
[Cmdlet(VerbsDiagnostic.Measure, "LoKrModel", DefaultParameterSetName = DataSet)]
[OutputType(typeof(LoKrEvaluation), typeof(LoKrLabelEvaluation), typeof(LoKrConfusion))]
public sealed class MeasureLoKrModelCommand : DataCommand
{
    private const string DataSet = "Data";
    private const string RowSet = "Row";
    private readonly List<object?> _rows = [];

    /// <summary>The model: from Import-LoKrModel, or any torch.nn.Module.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = DataSet)]
    [Parameter(Mandatory = true, ParameterSetName = RowSet)]
    [LoKrModelTransformation]
    [ValidateNotNull]
    public LoKrModel Model { get; set; } = null!;

    /// <summary>Data files (.jsonl, .json, .csv, .tsv, .conll, also with .gz, and .parquet; wildcards are allowed), or rows as hashtables or objects.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = DataSet)]
    [SupportsWildcards]
    [AllowEmptyCollection]
    [ValidateNotNull]
    public object[] Data { get; set; } = [];

    /// <summary>Rows from the pipeline, as hashtables or objects.</summary>
    [Parameter(Mandatory = true, ValueFromPipeline = true, ParameterSetName = RowSet)]
    [ValidateNotNull]
    public PSObject? InputObject { get; set; }

    /// <summary>Rows in a batch; it affects only speed and memory.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int BatchSize { get; set; } = 16;

    /// <summary>Longest sequence in tokens; longer ones are cut. The default is the most that the model allows.</summary>
    [Parameter]
    public int? MaxLength { get; set; }

    /// <summary>Which tokens of conversations, and of prompts with completions, the loss is taken over: Answers, what the assistant says and the completions, or All.</summary>
    [Parameter]
    public LossOn LossOn { get; set; }

    /// <summary>Write the figures of every label, or type of entities, instead of those of all: rows, answers, precision, recall and F1. For classifiers.</summary>
    [Parameter]
    public SwitchParameter ByLabel { get; set; }

    /// <summary>Write the confusion table: one object for each pair of right label and answer that occurs. With -ByLabel it follows those figures. For classifiers.</summary>
    [Parameter]
    public SwitchParameter Confusion { get; set; }

    /// <summary>Whether the batches are shared with other processes: Auto with those that mpirun or srun started beside this one, None with none, Mpi over MPI also where no launcher is seen. It does not change the figures.</summary>
    [Parameter]
    public DistributedMode Distributed { get; set; }

    /// <inheritdoc/>
    private protected override bool IsFollower => Distributed is not DistributedMode.None && base.IsFollower;

    /// <inheritdoc/>
    protected override string? Subject => Model?.SourcePath ?? Model?.Name;

    /// <inheritdoc/>
    protected override void Process()
    {
        if (ParameterSetName == RowSet)
        {
            _rows.Add(InputObject);
        }
        else
        {
            Measure(Data);
        }
    }

    /// <inheritdoc/>
    protected override void End()
    {
        if (ParameterSetName == RowSet)
        {
            Measure(_rows);
        }
    }

    private void Measure(IReadOnlyList<object?> data)
    {
        WorkerGroup? workers = WorkerGroup.Join(Distributed);
        using ITrainingTask task = ReadTask(Model, data, new TrainingOptions { MaxLength = MaxLength }, BeginReading(LossOn, FormerRun.DayOf(options: null, workers)));
        WriteWarnings([.. task.Warnings, .. Model.Pretrained is ICausalLanguageModel ? [] : Ignored("for a model that is not a language model", nameof(LossOn))]);
        using ProgressBar bar = new(this, $"Measuring {Model.Name}");
        void Report(double share) => bar.ShowIfDue(share, $"{share:P0} of {task.RowCount} rows");
        if (!ByLabel && !Confusion)
        {
            Write(Evaluator.Evaluate(Model, task, BatchSize, workers, Report, StopToken));
            return;
        }

        LabelReport report = Evaluator.EvaluateByLabel(Model, task, BatchSize, workers, Report, StopToken);
        if (ByLabel)
        {
            Write(report.Labels);
        }

        if (Confusion)
        {
            Write(report.Confusion);
        }
    }

    private void Write(object measured)
    {
        if (IsFollower)
        {
            return;
        }

        // A search has other figures than a classifier, and a view of its own.
        if (measured is LoKrEvaluation { NdcgAt10: not null } or LoKrEvaluation { Spearman: not null })
        {
            PSObject shown = PSObject.AsPSObject(measured);
            shown.TypeNames.Insert(0, $"{typeof(LoKrEvaluation).FullName}#{(measured is LoKrEvaluation { NdcgAt10: not null } ? "Search" : "Score")}");
            measured = shown;
        }

        WriteObject(measured, enumerateCollection: true);
    }
}
