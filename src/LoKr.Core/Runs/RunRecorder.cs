using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;
using TorchSharp;

namespace LoKr.Core.Runs;

/// <summary>
/// Keeps a training in a run folder: state, log, checkpoints, result. A process that is killed at any moment loses at most the steps since
/// the last checkpoint, and the run that goes on ends with the same bits as one that was not interrupted.
/// </summary>
/// <example>
/// <code>
/// RunRecorder.Record(new() { Path = "runs/tickets" }, model, task, validation, options, journal =>
///     Trainer.Run([model], task, validation, options, journal));
/// </code>
/// </example>
public sealed class RunRecorder : ITrainingJournal, IDisposable
{
    private static readonly TimeSpan s_stateInterval = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan s_stopInterval = TimeSpan.FromMilliseconds(500);

    private readonly RunFolder _folder;
    private readonly RunOptions _options;
    private readonly IAdaptable _target;
    private readonly RunLock _lock;
    private readonly RunCheckpoints _checkpoints;
    private readonly RunProgress _progress = new();
    private readonly CancellationTokenSource _stop = new();
    private readonly System.Threading.Lock _gate = new();
    private readonly IReadOnlyList<string> _adapterNames;
    private readonly bool _keepsBest;
    private RunLog? _log;
    private EventFile? _events;
    private Timer? _stopFile;
    private LoKrRun _run;
    private long _checkpointAt;
    private long _stateAt;
    private volatile bool _checkpointRequested;
    private bool _ended; // or asked to

    private RunRecorder(RunFolder folder, RunOptions options, IAdaptable target, RunLock held, IReadOnlyList<string> adapterNames, bool keepsBest, RunOpening opening)
    {
        (_folder, _options, _target, _lock, _adapterNames, _keepsBest) = (folder, options, target, held, adapterNames, keepsBest);
        _checkpoints = new RunCheckpoints(folder.CheckpointFolder);
        (_run, Start, FinishedResult, Warnings) = (opening.Run, opening.Start, opening.Finished, opening.Warnings);
    }

    /// <summary>The state of the run.</summary>
    public LoKrRun Run => _run;

    /// <summary>The result of a run that had ended before: the adapter has its values, and nothing is left to do. Null otherwise.</summary>
    public LoKrTrainingResult? FinishedResult { get; }

    /// <summary>Warnings: checkpoints that cannot be used.</summary>
    public IReadOnlyList<string> Warnings { get; }

    /// <inheritdoc/>
    public long Seed => _run.Seed;

    /// <inheritdoc/>
    public TrainingState? Start { get; private set; }

    /// <inheritdoc/>
    public CancellationToken Stop => _stop.Token;

    /// <inheritdoc/>
    public string StopReason { get; private set; } = "";

    /// <summary>Trains in a run folder: from the beginning, or from where an interrupted run of the same inputs is. A finished run is returned as it is.</summary>
    /// <param name="options">The folder, and how it is used; null to train without one.</param>
    /// <param name="target">The model or the pipeline to train.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="training">Options of the training.</param>
    /// <param name="train">Trains with a journal.</param>
    /// <param name="onOpen">Gets the recorder before the first step, to ask for an end or a checkpoint later.</param>
    /// <exception cref="LoKrException">As for <see cref="Open"/> and for the training; the folder then says how the run ended.</exception>
    public static LoKrTrainingResult Record(
        RunOptions? options,
        IAdaptable target,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions training,
        Func<ITrainingJournal?, LoKrTrainingResult> train,
        Action<RunRecorder>? onOpen = null)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(train);
        ArgumentNullException.ThrowIfNull(training);
        WorkerGroup? workers = training.Workers;
        if (workers is null)
        {
            return options is null ? train(null) : RecordHere(options);
        }

        return workers.Run(() =>
        {
            IReadOnlyList<string> names = Trainer.Plan([.. target.Models.Values], task, training).AdapterNames;
            RunTogether.Agree(workers, new RunDescription(target, names, task, validation, training).Inputs, hasFolder: options is not null);
            return options is null ? train(null) : workers.IsFirst ? RecordHere(options) : RunTogether.ShareFinished(workers, target, names, own: null) ?? train(null);
        });

        LoKrTrainingResult RecordHere(RunOptions folder)
        {
            using RunRecorder recorder = Open(folder, target, Trainer.Plan([.. target.Models.Values], task, training), task, validation, training);
            onOpen?.Invoke(recorder);
            try
            {
                if (workers is not null)
                {
                    RunTogether.ShareFinished(workers, target, recorder._adapterNames, recorder.FinishedResult);
                }

                return recorder.FinishedResult ?? train(recorder);
            }
            catch (Exception exception)
            {
                recorder.Fail(exception);
                throw;
            }
        }
    }

    /// <summary>Trains one model on tokenized rows in a run folder, as <see cref="Record"/> does.</summary>
    /// <param name="run">The folder, and how it is used; null to train without one.</param>
    /// <param name="model">The model.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Options of the training.</param>
    /// <param name="onStep">Gets each step.</param>
    /// <param name="onEvaluation">Gets the share of an evaluation that is done.</param>
    /// <param name="onOpen">Gets the recorder before the first step.</param>
    /// <param name="cancellation">Ends the training after its step.</param>
    /// <exception cref="LoKrException">As for <see cref="Record"/>.</exception>
    public static LoKrTrainingResult Train(
        RunOptions? run,
        LoKrModel model,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        Action<LoKrTrainingStep>? onStep,
        Action<double>? onEvaluation,
        Action<RunRecorder>? onOpen,
        CancellationToken cancellation) =>
        Record(run, model, task, validation, options, journal => Trainer.Run([model], task, validation, options with { OnEvaluation = onEvaluation }, journal, onStep, cancellation), onOpen);

    /// <summary>Takes a run folder, and finds out where the run goes on.</summary>
    /// <param name="options">The folder, and how it is used.</param>
    /// <param name="target">The model or the pipeline to train.</param>
    /// <param name="plan">The plan of the training.</param>
    /// <param name="task">Data and loss.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="training">Options of the training.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.RunBusy"/>; <see cref="ErrorIds.RunExists"/>; <see cref="ErrorIds.RunNotFound"/>; <see cref="ErrorIds.RunMismatch"/>;
    /// <see cref="ErrorIds.RunInvalid"/>; <see cref="ErrorIds.DiskSpaceLow"/>; <see cref="ErrorIds.FileNotWritable"/>.
    /// </exception>
    internal static RunRecorder Open(RunOptions options, IAdaptable target, TrainingPlan plan, ITrainingTask task, ITrainingTask? validation, TrainingOptions training)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(plan);
        ArgumentNullException.ThrowIfNull(task);
        ArgumentNullException.ThrowIfNull(training);
        options.Validate();
        RunFolder folder = new(options.Path);
        RunLock held = folder.Lock();
        try
        {
            RunDescription description = new(target, plan.AdapterNames, task, validation, training);
            return new(folder, options, target, held, plan.AdapterNames, training.KeepBest, RunOpening.Of(folder, options, target, plan, training, description));
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    /// <summary>Ends the run after its step, with a checkpoint. Can be called from any thread.</summary>
    /// <param name="reason">A value of <see cref="LoKrTrainingResult.StopReason"/>.</param>
    public void RequestStop(string reason)
    {
        lock (_gate)
        {
            if (!_ended)
            {
                _ended = true;
                StopReason = reason;
                _stop.Cancel();
            }
        }
    }

    /// <summary>Writes a checkpoint after the step; the run goes on. Can be called from any thread.</summary>
    public void RequestCheckpoint() => _checkpointRequested = true;

    /// <summary>Records that an error ended the run. The run can be continued from its last checkpoint.</summary>
    /// <param name="exception">The error.</param>
    public void Fail(Exception exception)
    {
        ArgumentNullException.ThrowIfNull(exception);
        if (_run.State is not RunState.Running)
        {
            return;
        }

        LoKrException? known = exception as LoKrException;
        try
        {
            End(RunState.Failed, known?.ErrorId ?? exception.GetType().Name, known is null ? RunExitCodes.Error : RunExitCodes.Of(known), exception.Message);
        }
        catch (LoKrException second) when (second.ErrorId is ErrorIds.DiskFull or ErrorIds.FileNotWritable)
        {
            // The first error is the one to report; without its process the run counts as interrupted.
        }
    }

    /// <inheritdoc/>
    public void OnStart(Func<TrainingState> capture)
    {
        ArgumentNullException.ThrowIfNull(capture);
        _folder.ForgetStop();
        Release(Start);
        foreach (LoKrTrainingStep step in Start?.History ?? [])
        {
            _progress.AddLoss(step);
        }

        int steps = Start is null ? 0 : Start.History.Count - (Start.EvaluationIsDue ? 1 : 0);
        _log = RunLog.Open(_folder.LogFile, steps);
        _events = EventFile.Open(_folder.Of(EventFile.NameOf(_run.Created)), _run.Created, Start?.History.Take(steps) ?? []);
        if (Start is null)
        {
            Save(capture());
        }

        Start = null;
        _checkpointAt = _stateAt = Environment.TickCount64;
        _folder.Write(_run);
        _stopFile = new Timer(_ => CheckStopFile(), null, s_stopInterval, s_stopInterval);
    }

    /// <inheritdoc/>
    public void OnStep(LoKrTrainingStep step, bool isBest, Func<TrainingState> capture)
    {
        ArgumentNullException.ThrowIfNull(step);
        ArgumentNullException.ThrowIfNull(capture);
        _log!.Add(step);
        _events!.Add(step);
        _progress.Add(step);
        _run = At(_run, step) with
        {
            BestStep = isBest ? step.Step : _run.BestStep,
            SecondsRemaining = _progress.SecondsRemaining,
            LossCurve = _progress.LossCurve,
            ElapsedSeconds = step.Elapsed.TotalSeconds,
        };
        long now = Environment.TickCount64;
        bool last = step.Step == step.TotalSteps;
        bool due = _options.CheckpointEvery is { Steps: int steps } ? step.Step % steps == 0 : now - _checkpointAt >= _options.CheckpointEvery.Time!.Value.TotalMilliseconds;
        if ((due && !last) || _checkpointRequested || (isBest && _keepsBest))
        {
            _checkpointRequested = false;
            Save(capture());
            _checkpointAt = _stateAt = now;
        }
        else if (now - _stateAt >= s_stateInterval.TotalMilliseconds)
        {
            _stateAt = now;
            _folder.Write(_run = _run with { Updated = DateTime.UtcNow });
        }
    }

    /// <inheritdoc/>
    public void OnEnd(LoKrTrainingResult result, Func<TrainingState> capture)
    {
        ArgumentNullException.ThrowIfNull(result);
        ArgumentNullException.ThrowIfNull(capture);
        StopWatching();
        _run = _run with { Before = result.Before, After = result.After, BestStep = result.BestStep, ElapsedSeconds = result.Elapsed.TotalSeconds, SecondsRemaining = null };
        switch (result.StopReason)
        {
            case StopReasons.Completed or StopReasons.EarlyStopped:
                _log!.Flush();
                foreach (string name in _adapterNames)
                {
                    AdapterExporter.Export(_target, name, _folder.AdapterFolder, AdapterLayout.Peft, new() { Force = true });
                }

                End(RunState.Completed, result.StopReason, RunExitCodes.Success, null);
                break;
            case StopReasons.Diverged:
                End(RunState.Failed, result.StopReason, RunExitCodes.Diverged, null);
                break;
            default:
                Save(capture());
                End(RunState.Interrupted, result.StopReason, RunExitCodes.RunAgain, null);
                break;
        }
    }

    /// <summary>Releases the folder.</summary>
    public void Dispose()
    {
        StopWatching();
        Release(Start);
        _log?.Dispose();
        _events?.Dispose();
        _lock.Dispose();
        _stop.Dispose();
    }

    private static LoKrRun At(LoKrRun run, LoKrTrainingStep step) => run with { Step = step.Step, Epoch = step.Epoch, Loss = step.Loss };

    private void Save(TrainingState state)
    {
        _folder.RequireSpace(_options.MinimumFreeSpace);
        _log!.Flush();
        _checkpoints.Write(state, _target, _adapterNames);
        _run = _run with { CheckpointStep = state.History.Count, Updated = DateTime.UtcNow };
        if (state.History is [.., LoKrTrainingStep last])
        {
            // A stop within the evaluation of a step comes before the step is reported.
            _run = At(_run, last);
        }

        _folder.Write(_run);
        _checkpoints.Rotate(_options.CheckpointLimit, state.BestStep);
    }

    private void End(RunState state, string reason, int exitCode, string? message)
    {
        DateTime now = DateTime.UtcNow;
        _run = _run with
        {
            State = state,
            Reason = reason,
            Message = message,
            ExitCode = exitCode,
            SecondsRemaining = null,
            Updated = now,
            Ended = state is RunState.Interrupted ? null : now,
        };
        if (reason is StopReasons.Diverged || state is RunState.Completed)
        {
            RunReport.Write(_folder, _run);
        }

        // Last: a run that says it has ended has everything, whenever its process was killed.
        _folder.Write(_run);
    }

    private void CheckStopFile()
    {
        if (_folder.IsStopRequested)
        {
            RequestStop(StopReasons.Stopped);
        }
    }

    // From here on nobody is asked to stop.
    private void StopWatching()
    {
        _stopFile?.Dispose();
        lock (_gate)
        {
            _ended = true;
        }
    }

    private static void Release(TrainingState? state)
    {
        foreach (torch.Tensor tensor in state?.Tensors.Values ?? [])
        {
            tensor.Dispose();
        }
    }
}
