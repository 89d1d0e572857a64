using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
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
    private readonly List<string> _warnings = [];
    private readonly string[] _adapterNames;
    private readonly bool _keepsBest;
    private RunLog? _log;
    private EventFile? _events;
    private Timer? _stopFile;
    private LoKrRun _run;
    private long _checkpointAt;
    private long _stateAt;
    private volatile bool _checkpointRequested;
    private bool _ended; // or asked to

    private RunRecorder(RunFolder folder, RunOptions options, IAdaptable target, RunLock held, string[] adapterNames, bool keepsBest, LoKrRun run)
    {
        (_folder, _options, _target, _lock, _adapterNames, _keepsBest, _run) = (folder, options, target, held, adapterNames, keepsBest, run);
        _checkpoints = new RunCheckpoints(folder.CheckpointFolder);
    }

    /// <summary>The state of the run.</summary>
    public LoKrRun Run => _run;

    /// <summary>The result of a run that had ended before: the adapter has its values, and nothing is left to do. Null otherwise.</summary>
    public LoKrTrainingResult? FinishedResult { get; private set; }

    /// <summary>What a person should know: checkpoints that cannot be used.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

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
        if (training.Workers is WorkerGroup workers)
        {
            return workers.Run(() => RunTogether.Record(workers, options, target, task, validation, training, train, onOpen));
        }

        return options is null ? train(null) : RecordAlone(options, target, task, validation, training, train, onOpen);
    }

    /// <summary>Records as <see cref="Record"/> does, in one process or in the first of several workers.</summary>
    internal static LoKrTrainingResult RecordAlone(
        RunOptions options,
        IAdaptable target,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions training,
        Func<ITrainingJournal?, LoKrTrainingResult> train,
        Action<RunRecorder>? onOpen)
    {
        using RunRecorder recorder = Open(options, target, Trainer.Plan([.. target.Models.Values], task, training), task, validation, training);
        onOpen?.Invoke(recorder);
        try
        {
            if (training.Workers is not null)
            {
                RunTogether.ShareFinished(training.Workers, target, recorder._adapterNames, recorder.FinishedResult);
            }

            return recorder.FinishedResult ?? train(recorder);
        }
        catch (Exception exception)
        {
            recorder.Fail(exception);
            throw;
        }
    }

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
            former, new RunDescription(target, Trainer.Plan([.. target.Models.Values], task, training).AdapterName.Split(", "), task, validation, training).Inputs);
    }

    // The run in a folder that may go on.
    private static LoKrRun? Former(RunOptions? options) =>
        options is { Resume: not RunResume.Never } && new RunFolder(options.Path) is { Exists: true } folder ? folder.Read() : null;

    private static bool CanContinue(LoKrRun former, RunInputs inputs) => former.Reason != "Diverged" && !Differences(former.Inputs, inputs).Any();

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
        string[] names = plan.AdapterName.Split(", ");
        RunLock? held = folder.Lock();
        RunRecorder? recorder = null;
        try
        {
            RunDescription description = new(target, names, task, validation, training);
            recorder = new(folder, options, target, held, names, training.KeepBest, Begin(target, plan, training, description.Inputs));
            held = null;
            recorder.Prepare(description);
            RunRecorder ready = recorder;
            recorder = null;
            return ready;
        }
        finally
        {
            recorder?.Dispose();
            held?.Dispose();
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
            case "Completed" or "EarlyStopped":
                _log!.Flush();
                foreach (string name in _adapterNames)
                {
                    AdapterExporter.Export(_target, name, _folder.AdapterFolder, AdapterLayout.Peft, new() { Force = true });
                }

                End(RunState.Completed, result.StopReason, RunExitCodes.Success, null);
                break;
            case "Diverged":
                End(RunState.Failed, result.StopReason, RunExitCodes.Diverged, null);
                break;
            default:
                Save(capture());
                End(RunState.Interrupted, StopReason.Length > 0 ? StopReason : result.StopReason, RunExitCodes.RunAgain, null);
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

    private static LoKrRun Begin(IAdaptable target, TrainingPlan plan, TrainingOptions training, RunInputs inputs)
    {
        DateTime now = DateTime.UtcNow;
        LoKrRuntimeInfo? runtime = TorchRuntime.Current;
        return new()
        {
            Id = string.Create(CultureInfo.InvariantCulture, $"{now:yyyyMMdd'T'HHmmss'Z'}-{RandomNumberGenerator.GetHexString(8, lowercase: true)}"),
            State = RunState.Running,
            Model = target.Name,
            AdapterName = plan.AdapterName,
            Seed = training.Seed ?? Random.Shared.NextInt64(),
            HeadLearningRate = plan.HeadLearningRate,
            Device = target.Models.Values.First().Device.ToString(),
            Threads = torch.get_num_threads(),
            BatchesPerStep = plan.BatchesPerStep,
            Workers = plan.Workers,
            Day = plan.Day,
            TotalSteps = plan.TotalSteps,
            Host = Environment.MachineName,
            ProcessId = Environment.ProcessId,
            Created = now,
            Updated = now,
            TrainableParameterCount = plan.TrainableParameterCount,
            Inputs = inputs,
            Version = typeof(RunRecorder).Assembly.GetName().Version?.ToString(3) ?? "",
            LibtorchVersion = runtime?.LibtorchVersion ?? "",
        };
    }

    private void Prepare(RunDescription description)
    {
        if (_folder.IsForeign)
        {
            throw new LoKrException(ErrorIds.RunExists, LoKrErrorKind.AlreadyExists, $"'{_folder.Path}' holds files, but no run.", "Use a folder of its own.") { Target = _folder.Path };
        }

        _checkpoints.RemoveLeftovers();
        LoKrRun? former = _folder.Exists ? _folder.Read() : null;
        if (former is not null && _options.Resume is RunResume.Never && !_options.Force)
        {
            throw new LoKrException(ErrorIds.RunExists, LoKrErrorKind.AlreadyExists, $"'{_folder.Path}' has the run {former.Id}.",
                "Use another folder, or allow to begin anew.") { Target = _folder.Path };
        }

        if (former is not null && _options.Resume is not RunResume.Never && TryContinue(former, description.Inputs))
        {
            return;
        }

        if (_options.Resume is RunResume.Required)
        {
            throw new LoKrException(ErrorIds.RunNotFound, LoKrErrorKind.NotFound, $"'{_folder.Path}' has no run to continue.", "Check the path, or allow a new run.") { Target = _folder.Path };
        }

        _folder.RequireSpace(_options.MinimumFreeSpace);
        if (former is not null)
        {
            _folder.Clear();
        }

        AtomicFile.WriteText(_folder.ConfigFile, description.Json);
        _folder.Write(_run);
    }

    private bool TryContinue(LoKrRun former, RunInputs inputs)
    {
        string[] differences = [.. Differences(former.Inputs, inputs)];
        if (differences.Length > 0)
        {
            return _options.Force ? false : throw new LoKrException(ErrorIds.RunMismatch, LoKrErrorKind.InvalidOperation,
                $"The run {former.Id} in '{_folder.Path}' began with another {string.Join(" and another ", differences)}.",
                "Use what it began with, another folder, or allow to begin anew.") { Target = _folder.Path };
        }

        if (former.Reason == "Diverged")
        {
            // The same steps would diverge again.
            return _options.Force ? false : throw new LoKrException(ErrorIds.RunExists, LoKrErrorKind.InvalidOperation,
                FormattableString.Invariant($"The run {former.Id} in '{_folder.Path}' diverged after step {former.Step}."),
                "Change the learning rate or the data, and begin anew or in another folder.") { Target = _folder.Path };
        }

        if (former.IsFinished)
        {
            _run = former;
            FinishedResult = Finished(former);
            return true;
        }

        Start = _checkpoints.ReadLast(_folder.LogFile, _warnings);
        if (Start is null)
        {
            if (_warnings.Count > 0 && !_options.Force)
            {
                throw new LoKrException(ErrorIds.RunInvalid, LoKrErrorKind.InvalidData, $"'{_folder.Path}' has no checkpoint that can be used. {_warnings[0]}",
                    "Restore the folder from a copy, or begin anew.") { Target = _folder.Path };
            }

            // Killed before its first checkpoint: it begins again, with the same seed.
            if (_options.Resume is RunResume.Required)
            {
                return false;
            }
        }

        double? ofHead = Start is null ? _run.HeadLearningRate : Start.HeadLearningRate;
        if (ofHead != _run.HeadLearningRate)
        {
            _warnings.Add($"The run {former.Id} began with {Rate(ofHead)} and keeps it, not {Rate(_run.HeadLearningRate)}.");
        }

        _run = former with
        {
            State = RunState.Running,
            HeadLearningRate = ofHead,
            Reason = null,
            Message = null,
            ExitCode = null,
            Ended = null,
            Attempt = former.Attempt + 1,
            Host = _run.Host,
            ProcessId = _run.ProcessId,
            Device = _run.Device,
            Threads = _run.Threads,
            Workers = _run.Workers,
            Version = _run.Version,
            LibtorchVersion = _run.LibtorchVersion,
            Step = Start?.History.Count ?? 0,
            Updated = DateTime.UtcNow,
        };
        return true;
    }

    private static string Rate(double? ofHead) => ofHead is double rate ? FormattableString.Invariant($"a learning rate of {rate:G4} for the head") : "one learning rate for all parameters";

    private static IEnumerable<string> Differences(RunInputs former, RunInputs now)
    {
        (string Name, string? Former, string? Now)[] inputs =
        [
            ("data", former.Data, now.Data),
            ("validation data", former.ValidationData, now.ValidationData),
            ("base model", former.BaseModel, now.BaseModel),
            ("configuration of the model", former.ModelSettings ?? now.ModelSettings, now.ModelSettings),
            ("configuration", former.Configuration, now.Configuration),
        ];
        return inputs.Where(static input => input.Former != input.Now).Select(static input => input.Name);
    }

    private LoKrTrainingResult Finished(LoKrRun run)
    {
        foreach (string name in _adapterNames)
        {
            foreach ((string component, LoKrAdapter adapter) in _target.GetAdapters(name))
            {
                using PeftAdapterFolder files = PeftAdapterFolder.Read(component.Length == 0 ? _folder.AdapterFolder : Path.Combine(_folder.AdapterFolder, component));
                using DisposeScope scope = torch.NewDisposeScope();
                AdapterLoader.Load(adapter, files.Tensors.Entries.Keys.ToDictionary(static name => name, name => files.Tensors.Read(name), StringComparer.Ordinal));
            }
        }

        LoKrTrainingResult result = new()
        {
            AdapterName = run.AdapterName,
            History = RunLog.Read(_folder.LogFile),
            StopReason = run.Reason ?? "Completed",
            Before = run.Before,
            After = run.After,
            BestStep = run.BestStep,
            Seed = run.Seed,
            HeadLearningRate = run.HeadLearningRate,
            TrainableParameterCount = run.TrainableParameterCount,
            Elapsed = TimeSpan.FromSeconds(run.ElapsedSeconds),
        };
        _target.LastTraining = result;
        return result;
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
        if (reason is "Diverged" || state is RunState.Completed)
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
            RequestStop("Stopped");
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

/// <summary>What a run is made of: the hashes that a continuation compares, and the text of <c>config.json</c>.</summary>
internal sealed class RunDescription
{
    public RunDescription(IAdaptable target, IReadOnlyList<string> names, ITrainingTask task, ITrainingTask? validation, TrainingOptions training)
    {
        KeyValuePair<string, LoKrAdapter>[] adapters = [.. names.SelectMany(name => target.GetAdapters(name))];
        JsonObject adapterConfigs = [];
        foreach ((string component, LoKrAdapter adapter) in adapters)
        {
            adapterConfigs.Add(component.Length == 0 ? adapter.Name : $"{component}/{adapter.Name}", JsonNode.Parse(LoKrConfigJson.Write(adapter.Config)));
        }

        // The time a run may take, and the seed that a run without one draws, do not change its numbers.
        JsonObject config = new()
        {
            ["adapters"] = adapterConfigs,
            ["training"] = JsonNode.Parse(JsonRecords.ToLine(training with { TimeLimit = null, OnEvaluation = null })),
        };
        Json = config.ToJsonString(new() { WriteIndented = true }) + "\n";
        Inputs = new()
        {
            Data = task.DataHash,
            ValidationData = validation?.DataHash,
            BaseModel = ModelHash.OfBase(target.Models, adapters),
            ModelSettings = ModelHash.OfSettings(target.Models),
            Configuration = Hash(Encoding.UTF8.GetBytes(Json)),
            StartAdapter = ModelHash.OfValues(adapters.SelectMany(static pair => pair.Value.FlatParameters)),
        };
    }

    /// <summary>The hashes.</summary>
    public RunInputs Inputs { get; }

    /// <summary>Configurations of the adapters and options of the training.</summary>
    public string Json { get; }

    private static string Hash(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));
}

/// <summary>
/// The course of the loss, and the time that is left: from the time between the last steps, evaluations included. The first steps of a process
/// are slower and do not count.
/// </summary>
internal sealed class RunProgress
{
    private const int Window = 50;
    private const int Parts = 32;

    private readonly Queue<double> _ends = new();
    private readonly List<(double Sum, int Count)> _parts = [];
    private int _left;

    /// <summary>Seconds that are left; null until it means something.</summary>
    public double? SecondsRemaining => _ends.Count < 5 ? null : (_ends.Last() - _ends.Peek()) / (_ends.Count - 1) * _left;

    /// <summary>Mean loss of each part of the run.</summary>
    public IReadOnlyList<double> LossCurve => [.. _parts.Where(static part => part.Count > 0).Select(static part => part.Sum / part.Count)];

    /// <summary>Adds a step of this process.</summary>
    public void Add(LoKrTrainingStep step)
    {
        AddLoss(step);
        _left = step.TotalSteps - step.Step;
        _ends.Enqueue(step.Elapsed.TotalSeconds);
        if (_ends.Count > Window)
        {
            _ends.Dequeue();
        }
    }

    /// <summary>Adds the loss of a step.</summary>
    public void AddLoss(LoKrTrainingStep step)
    {
        int part = (int)((long)(step.Step - 1) * Math.Min(Parts, step.TotalSteps) / step.TotalSteps);
        while (_parts.Count <= part)
        {
            _parts.Add((0, 0));
        }

        _parts[part] = (_parts[part].Sum + step.Loss, _parts[part].Count + 1);
    }
}
