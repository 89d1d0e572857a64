using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Distributed;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that train: how a run ends, and how it is kept on disk.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class RecordedTrainingCommand : TrainingCommand
{
    private static readonly string[] s_ofRunFolders = [nameof(CheckpointEvery), nameof(CheckpointLimit), nameof(Resume), nameof(Force), nameof(MinimumFreeSpace)];

    /// <summary>Folder that keeps the run: state, log, checkpoints, and the adapter at the end. A run that was interrupted there goes on.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(RunCompleter))]
    public string? RunPath { get; set; }

    /// <summary>Steps (200) or time (10m) between checkpoints in -RunPath; the default is ten minutes. A run that is stopped writes one too.</summary>
    [Parameter]
    [IntervalTransformation]
    public RunInterval? CheckpointEvery { get; set; }

    /// <summary>Number of checkpoints that stay; the one of the best evaluation stays as well.</summary>
    [Parameter]
    public int CheckpointLimit { get; set; } = 3;

    /// <summary>How a run that is in -RunPath is treated: Auto continues an interrupted one and returns a finished one, Never begins a new one, Required needs one to continue.</summary>
    [Parameter]
    public RunResume Resume { get; set; }

    /// <summary>Begins anew where the run in -RunPath is not continued: one of other data, another base model or another configuration, or with -Resume Never any.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <summary>Bytes that have to stay free on the disk of -RunPath (2GB); checked before every checkpoint.</summary>
    [Parameter]
    public long MinimumFreeSpace { get; set; }

    /// <summary>Time (2h, 90m, 00:30:00) after which training ends with a complete step.</summary>
    [Parameter]
    [DurationTransformation]
    public TimeSpan? TimeLimit { get; set; }

    /// <summary>Number of evaluations without improvement after which training ends.</summary>
    [Parameter]
    public int? Patience { get; set; }

    /// <summary>How much better than the best one an evaluation has to be to count as an improvement for -Patience, in units of -Metric.</summary>
    [Parameter]
    public double MinimumImprovement { get; set; }

    /// <summary>The measure that decides which evaluation is the best: Accuracy, ExactMatch, F1 (macro), MicroF1, WeightedF1, Precision, Recall (both macro), MatthewsCorrelation, EntityF1, EntityPrecision, EntityRecall, the same with Strict before it, RecallAt1, RecallAt10, MrrAt10, NdcgAt10, Spearman, Loss or Perplexity; the default is the measure of the task.</summary>
    [Parameter]
    public EvaluationMetric? Metric { get; set; }

    /// <summary>Ends with the values that had the best evaluation, not with those of the last step.</summary>
    [Parameter]
    public SwitchParameter KeepBest { get; set; }

    /// <summary>Whether the batches of a step and of an evaluation are shared with other processes: Auto with those that mpirun or srun started beside this one, None with none, Mpi over MPI also where no launcher is seen. It does not change the numbers for an equal -GradientAccumulation.</summary>
    [Parameter]
    public DistributedMode Distributed { get; set; }

    /// <inheritdoc/>
    private protected override bool IsFollower => Distributed is not DistributedMode.None && base.IsFollower;

    /// <summary>The options of a training with the values of these parameters, those for several processes included.</summary>
    private protected TrainingOptions WithSharing(TrainingOptions options)
    {
        WorkerGroup? workers = WorkerGroup.Join(Distributed);
        return options with
        {
            Workers = workers,
            GradientAccumulation = FormerRun.BatchesPerStep(
                MyInvocation.BoundParameters.ContainsKey(nameof(GradientAccumulation)) ? GradientAccumulation : null, ReadRunOptions(), WorkerGroup.IsAsked(Distributed), workers),
        };
    }

    /// <summary>The options of a training with the values of these parameters.</summary>
    private protected TrainingOptions WithEndings(TrainingOptions options) =>
        options with { TimeLimit = TimeLimit, Patience = Patience, MinimumImprovement = MinimumImprovement, Metric = Metric, KeepBest = KeepBest };

    /// <summary>How the run is kept on disk; null for a run in memory.</summary>
    private protected RunOptions? ReadRunOptions() => RunPath is null ? null : new()
    {
        Path = Paths.New(RunPath),
        CheckpointEvery = CheckpointEvery ?? new(TimeSpan.FromMinutes(10)),
        CheckpointLimit = CheckpointLimit,
        Resume = Resume,
        Force = Force,
        MinimumFreeSpace = MinimumFreeSpace,
    };

    /// <summary>Warnings about parameters of run folders that have no effect.</summary>
    private protected IEnumerable<string> IgnoredRunParameters() => RunPath is null
        ? Ignored($"without -{nameof(RunPath)}", s_ofRunFolders)
        : Resume is RunResume.Required ? Ignored($"beside -{nameof(Resume)} {Resume}, which never begins anew", nameof(Force)) : [];
}
