using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>Services that a job needs from the program that runs it.</summary>
public sealed record JobServices
{
    /// <summary>Loads the model of a job with labels for its head; null takes those of the checkpoint.</summary>
    public required Func<LoKrJob, IReadOnlyList<string>?, CancellationToken, LoKrModel> LoadModel { get; init; }

    /// <summary>Gets a line for each thing that the job does.</summary>
    public Action<string> OnLog { get; init; } = static _ => { };

    /// <summary>Gets warnings.</summary>
    public Action<string> OnWarning { get; init; } = static _ => { };

    /// <summary>Gets each step of the training.</summary>
    public Action<LoKrTrainingStep>? OnStep { get; init; }

    /// <summary>Gets the share of an evaluation that is done.</summary>
    public Action<double>? OnEvaluation { get; init; }

    /// <summary>Gets the recorder of the run before its first step, to ask for an end or a checkpoint.</summary>
    public Action<RunRecorder>? OnRun { get; init; }

    /// <summary>
    /// The workers that do the job together; null for a process alone. They share the batches of its training. All else is done by the first one, which
    /// gives the others its result; they report nothing.
    /// </summary>
    public WorkerGroup? Workers { get; init; }
}

/// <summary>
/// Does a job: lock, data, "nothing new", training or the continuation of one, gate, registry, retention. Everything it leaves is on disk, so that
/// a job that is killed at any moment goes on where it was when it is run again.
/// </summary>
public sealed class JobRunner
{
    private static readonly JsonErrors s_errors = new(ErrorIds.RunInvalid, ErrorIds.RunInvalid, "Remove the file; the next result replaces it.");

    private readonly LoKrJob _job;
    private readonly JobServices _services;
    private readonly WorkerGroup? _workers;
    private readonly DateTime _started = DateTime.UtcNow;
    private readonly long _clock = Stopwatch.GetTimestamp();
    private readonly string _folder;
    private readonly AdapterRegistry? _registry;
    private readonly JobSurvey _survey;
    private readonly JobTraining _training;
    private readonly JobPromotion _promotion;
    private readonly JobHousekeeping _housekeeping;

    private JobNight? _night;
    private RunFolder? _run;

    /// <summary>Prepares a job; nothing is read yet.</summary>
    /// <param name="job">The job.</param>
    /// <param name="services">What it needs from the program.</param>
    public JobRunner(LoKrJob job, JobServices services)
    {
        ArgumentNullException.ThrowIfNull(job);
        ArgumentNullException.ThrowIfNull(services);
        (_job, _workers, _folder) = (job, services.Workers, FolderOf(job));
        _services = _workers is { IsFirst: false } ? new() { LoadModel = services.LoadModel, Workers = _workers } : services;
        _registry = job.Registry is null ? null : new(job.FullPath(job.Registry.Path));
        _survey = new(job, _registry, _services);
        _training = new(job, _services, _survey, _folder, _started);
        _promotion = new(job, _services, _survey, _training, _registry);
        _housekeeping = new(job, _services, _registry, _folder);
    }

    /// <summary>The error that ended the job; null without one.</summary>
    public Exception? Failure { get; private set; }

    /// <summary>The folder of the job's runs.</summary>
    public string RunFolder => _folder;

    /// <summary>The folder of the runs of a job.</summary>
    internal static string FolderOf(LoKrJob job) => Path.Combine(job.FullPath(job.Runs.Path), job.Name);

    /// <summary>Whether a process does the job whose runs are in a folder.</summary>
    internal static bool IsBusy(string folder) => RunLock.IsHeld(LockOf(folder));

    private static string LockOf(string folder) => Path.Combine(folder, ".job.lock");

    private string ResultFile => Path.Combine(_folder, "result.json");

    /// <summary>Does the job. Errors end it with a result too; <see cref="Failure"/> has them.</summary>
    /// <param name="cancellation">Ends it: a training after its step and with a checkpoint, anything else at once.</param>
    /// <exception cref="OperationCanceledException">It was canceled while it did not train.</exception>
    public LoKrJobResult Run(CancellationToken cancellation = default)
    {
        LoKrJobResult result;
        try
        {
            result = _workers is null ? RunFirst(cancellation) : _workers.Run(() => RunTogether(_workers, cancellation));
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            result = Fail(exception);
        }

        _services.OnLog(string.Create(CultureInfo.InvariantCulture, $"{result.State}, exit code {result.ExitCode}: {result.Message}"));
        return result;
    }

    /// <summary>Says what the job would do. Nothing is written, and no lock is taken.</summary>
    /// <param name="cancellation">Ends it.</param>
    /// <exception cref="LoKrException">What would end the job.</exception>
    public JobPlan Plan(CancellationToken cancellation = default)
    {
        JobNight night = Look(cancellation);
        if (night.IsNothingNew)
        {
            return new() { Job = _job.Name, Champion = night.Champion?.Version, RowCount = night.Rows.Count, IsNothingNew = true };
        }

        RunFolder folder = _training.FindRun(night);
        using LoKrModel model = _training.Prepare(night, cancellation);
        using ITrainingTask task = _training.CreateTask(model, night.Rows, cancellation);
        return new()
        {
            Job = _job.Name,
            Champion = night.Champion?.Version,
            RowCount = night.Rows.Count,
            NewLabels = night.NewLabels,
            Training = Trainer.Plan(model, task, _training.Options),
            Run = folder.Path,
            IsContinued = folder.Exists,
            Gate = _job.Gate is not null,
            Registry = _registry?.Path,
            Adapter = _job.AdapterName,
            Alias = _job.Alias,
        };
    }

    private JobNight Look(CancellationToken cancellation)
    {
        _night = _survey.Look(cancellation);
        return _night.IsNothingNew ? _night : _survey.ChooseLabels(_night);
    }

    private LoKrJobResult RunFirst(CancellationToken cancellation)
    {
        FileSystem.CreateFolder(_folder);
        using (RunLock.Take(_folder, LockOf(_folder)))
        {
            LoKrJobResult result = RunLocked(cancellation);
            JsonRecords.Write(ResultFile, result);
            return result;
        }
    }

    // The others wait until the first one has found something to train, and again until it has done with the result.
    private LoKrJobResult RunTogether(WorkerGroup workers, CancellationToken cancellation)
    {
        if (workers.IsFirst)
        {
            return Share(RunFirst(cancellation))!;
        }

        if (Share(null) is LoKrJobResult early)
        {
            return early;
        }

        JobNight night = Look(cancellation);
        using (LoKrModel model = _training.Prepare(night, cancellation))
        {
            _training.Train(night, model, _training.FindRun(night), cancellation);
        }

        return Share(null)!;
    }

    // Null says that the training begins.
    private LoKrJobResult? Share(LoKrJobResult? own) => _workers is null ? own : _workers.RecordOfFirst(WorkerCall.Begin, "the result", own);

    private LoKrJobResult RunLocked(CancellationToken cancellation)
    {
        JobNight night = Look(cancellation);
        LoKrJobResult? killed = CompleteKilled(night);
        if (night.IsNothingNew)
        {
            return killed ?? Result(night, LoKrJobState.NothingToDo, RunExitCodes.NothingToDo,
                string.Create(CultureInfo.InvariantCulture, $"Data, base model and configuration are those of version {night.Champion!.Version}."));
        }

        RunFolder folder = _run = _training.FindRun(night);
        if (folder.Exists && folder.Read() is { HasDiverged: true } diverged)
        {
            return Result(night, LoKrJobState.Failed, RunExitCodes.Diverged,
                FormattableString.Invariant($"The run with these data and this configuration diverged after step {diverged.Step}; it would again.")) with { Run = folder.Path, ErrorId = ErrorIds.LossNotFinite };
        }

        Share(null);
        using LoKrModel model = _training.Prepare(night, cancellation);
        _survey.CheckData(night.Rows, night.ValidationRows, model, cancellation);
        LoKrTrainingResult training = _training.Train(night, model, folder, cancellation);
        LoKrJobResult trained = Result(night, LoKrJobState.Trained, RunExitCodes.Of(training.StopReason), $"{training}.") with
        {
            Run = folder.Path, Steps = training.History.Count, Evaluation = training.After,
        };
        if (training.StopReason is StopReasons.Diverged)
        {
            return trained with { State = LoKrJobState.Failed, ErrorId = ErrorIds.LossNotFinite };
        }

        if (trained.ExitCode == RunExitCodes.RunAgain)
        {
            return trained with { State = LoKrJobState.Stopped, Message = FormattableString.Invariant($"Stopped ({training.StopReason}) after step {training.History.Count}; run again to go on.") };
        }

        LoKrJobResult result = _promotion.Run(night, model, folder, trained, cancellation);
        return _housekeeping.Run(result);
    }

    // What is left to do for a result that was published by a process that was killed then.
    private LoKrJobResult? CompleteKilled(JobNight night)
    {
        LoKrJobResult? last = File.Exists(ResultFile) ? JsonRecords.Read<LoKrJobResult>(ResultFile, s_errors) : null;
        LoKrJobResult? published = _promotion.Complete(night.Champion, last, _folder, folder =>
        {
            LoKrRun run = folder.Read();
            return Result(night, LoKrJobState.Published, RunExitCodes.Success, "") with { Run = folder.Path, Steps = run.Step, Evaluation = run.After };
        });
        return published is null ? null : _housekeeping.Run(published);
    }

    private LoKrJobResult Fail(Exception exception)
    {
        Failure = exception;
        LoKrException? known = exception as LoKrException;
        return new()
        {
            Job = _job.Name,
            Path = _job.Path,
            State = LoKrJobState.Failed,
            ExitCode = known is not null ? RunExitCodes.Of(known) : FileErrors.IsFileSystem(exception) ? RunExitCodes.NoSpace : RunExitCodes.Error,
            ErrorId = known?.ErrorId ?? exception.GetType().Name,
            Message = exception.Message,
            Run = _run is { Exists: true } ? _run.Path : null,
            Champion = _night?.Champion?.Version,
            RowCount = _night?.Rows.Count ?? 0,
            Started = _started,
            Elapsed = Stopwatch.GetElapsedTime(_clock),
        };
    }

    private LoKrJobResult Result(JobNight night, LoKrJobState state, int exitCode, string message) => new()
    {
        Job = _job.Name,
        Path = _job.Path,
        State = state,
        ExitCode = exitCode,
        Message = message,
        Champion = night.Champion?.Version,
        RowCount = night.Rows.Count,
        NewLabels = night.NewLabels,
        Started = _started,
        Elapsed = Stopwatch.GetElapsedTime(_clock),
    };
}
