using LoKr.Core.Distributed;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>Settings that a training takes over from the run in its folder before its rows are read, since the rows and the plan depend on them.</summary>
public static class FormerRun
{
    /// <summary>
    /// Batches whose gradients make one step: what is asked for, or that of the run that goes on, or a number for several workers, or one. All workers get
    /// what the first one finds.
    /// </summary>
    /// <param name="asked">What is asked for, or null.</param>
    /// <param name="options">The run folder; null for a run in memory.</param>
    /// <param name="forWorkers">Whether several workers may share the batches.</param>
    /// <param name="workers">The workers, if they are several.</param>
    public static int BatchesPerStep(int? asked, RunOptions? options, bool forWorkers, WorkerGroup? workers)
    {
        return asked ?? (workers is null ? Found() : workers.Run(() => BitConverter.ToInt32(workers.FromFirst(WorkerCall.Begin, workers.IsFirst ? BitConverter.GetBytes(Found()) : default))));

        int Found() => Former(options)?.BatchesPerStep ?? (forWorkers ? WorkerGroup.DefaultBatchesPerStep : 1);
    }

    /// <summary>
    /// The day that chat templates write, at midnight: that of the run that goes on, or today. All workers get what the first one finds.
    /// </summary>
    /// <param name="options">The run folder; null for a run in memory.</param>
    /// <param name="workers">The workers, if they are several.</param>
    public static DateTime DayOf(RunOptions? options, WorkerGroup? workers)
    {
        return workers is null ? Found() : workers.Run(() => new DateTime(BitConverter.ToInt64(workers.FromFirst(WorkerCall.Begin, workers.IsFirst ? BitConverter.GetBytes(Found().Ticks) : default))));

        DateTime Found() => Former(options)?.Day ?? DateTime.Today;
    }

    /// <summary>
    /// Whether a run that may begin anew does, because what is in its folder has other inputs: its rows then need the day of today, not that of
    /// the run that they replace.
    /// </summary>
    /// <param name="options">The run folder; null for a run in memory.</param>
    /// <param name="target">The model or the pipeline to train.</param>
    /// <param name="task">Data and loss, with the day of the run in the folder.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="training">Options of the training.</param>
    public static bool NeedsToday(RunOptions? options, IAdaptable target, ITrainingTask task, ITrainingTask? validation, TrainingOptions training)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(task);
        ArgumentNullException.ThrowIfNull(training);
        return options is { Force: true } && (task.Day ?? validation?.Day) is not null
            && (training.Workers is not WorkerGroup workers ? Found() : workers.Run(() => workers.FromFirst(WorkerCall.Begin, workers.IsFirst ? [Found() ? (byte)1 : (byte)0] : default)[0] == 1));

        bool Found() => Former(options) is LoKrRun former && (task.Day ?? validation?.Day) != DateTime.Today && !CanContinue(
            former, new RunDescription(target, Trainer.Plan([.. target.Models.Values], task, training).AdapterNames, task, validation, training).Inputs);
    }

    // The run in a folder that may go on.
    private static LoKrRun? Former(RunOptions? options) =>
        options is { Resume: not RunResume.Never } && new RunFolder(options.Path) is { Exists: true } folder ? folder.Read() : null;

    private static bool CanContinue(LoKrRun former, RunInputs inputs) => !former.HasDiverged && !inputs.DifferencesFrom(former.Inputs).Any();
}
