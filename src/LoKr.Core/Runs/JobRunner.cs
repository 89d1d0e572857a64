using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>What a job needs from the program that runs it.</summary>
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
    private readonly LoKrJob _job;
    private readonly JobServices _services;
    private readonly WorkerGroup? _workers;
    private readonly DateTime _started = DateTime.UtcNow;
    private readonly long _clock = Stopwatch.GetTimestamp();
    private readonly string _folder;
    private readonly AdapterRegistry? _registry;
    private readonly JobSurvey _survey;

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
    }

    /// <summary>The error that ended the job; null without one.</summary>
    public Exception? Failure { get; private set; }

    /// <summary>The folder of the job's runs.</summary>
    public string RunFolder => _folder;

    // On a model a period would be a part of a module's name.
    private string ModelName => _job.AdapterName.Replace('.', '-');

    /// <summary>The folder of the runs of a job.</summary>
    internal static string FolderOf(LoKrJob job) => Path.Combine(job.FullPath(job.Runs.Path), job.Name);

    /// <summary>Whether a process does the job whose runs are in a folder.</summary>
    internal static bool IsBusy(string folder) => RunLock.IsHeld(LockOf(folder));

    private static string LockOf(string folder) => Path.Combine(folder, ".job.lock");

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

        RunFolder folder = FindRun(night);
        using LoKrModel model = Prepare(night, cancellation);
        using ITrainingTask task = CreateTask(model, night.Rows, cancellation);
        return new()
        {
            Job = _job.Name,
            Champion = night.Champion?.Version,
            RowCount = night.Rows.Count,
            NewLabels = night.NewLabels,
            Training = Trainer.Plan(model, task, Options),
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

    private TrainingOptions Options => _job.Training with { AdapterName = ModelName, Workers = _workers };

    private LoKrJobResult RunFirst(CancellationToken cancellation)
    {
        FileSystem.CreateFolder(_folder);
        using (RunLock.Take(_folder, LockOf(_folder)))
        {
            LoKrJobResult result = RunLocked(cancellation);
            JsonRecords.Write(Path.Combine(_folder, "result.json"), result);
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
        using (LoKrModel model = Prepare(night, cancellation))
        {
            Train(night, model, FindRun(night), cancellation);
        }

        return Share(null)!;
    }

    // Null says that the training begins.
    private LoKrJobResult? Share(LoKrJobResult? own) => _workers is null ? own : _workers.RecordOfFirst(WorkerCall.Begin, "the result", own);

    private LoKrJobResult RunLocked(CancellationToken cancellation)
    {
        JobNight night = Look(cancellation);
        if (night.IsNothingNew)
        {
            return Result(night, LoKrJobState.NothingToDo, RunExitCodes.NothingToDo,
                string.Create(CultureInfo.InvariantCulture, $"Data, base model and configuration are those of version {night.Champion!.Version}."));
        }

        RunFolder folder = _run = FindRun(night);
        if (folder.Exists && folder.Read() is { Reason: "Diverged" } diverged)
        {
            return Result(night, LoKrJobState.Failed, RunExitCodes.Diverged,
                FormattableString.Invariant($"The run with these data and this configuration diverged after step {diverged.Step}; it would again.")) with { Run = folder.Path, ErrorId = ErrorIds.LossNotFinite };
        }

        Share(null);
        using LoKrModel model = Prepare(night, cancellation);
        _survey.CheckData(night.Rows, night.ValidationRows, model, cancellation);
        LoKrTrainingResult training = Train(night, model, folder, cancellation);
        LoKrJobResult trained = Result(night, LoKrJobState.Trained, RunExitCodes.Of(training.StopReason), $"{training}.") with
        {
            Run = folder.Path, Steps = training.History.Count, Evaluation = training.After,
        };
        if (training.StopReason is "Diverged")
        {
            return trained with { State = LoKrJobState.Failed, ErrorId = ErrorIds.LossNotFinite };
        }

        if (trained.ExitCode == RunExitCodes.RunAgain)
        {
            return trained with { State = LoKrJobState.Stopped, Message = FormattableString.Invariant($"Stopped ({training.StopReason}) after step {training.History.Count}; run again to go on.") };
        }

        return Promote(night, model, folder, trained, cancellation);
    }

    // The model with the adapter that is trained.
    private LoKrModel Prepare(JobNight night, CancellationToken cancellation)
    {
        LoKrModel model = _services.LoadModel(_job, night.Labels, cancellation);
        try
        {
            if (_job.Registry?.StartFrom is JobStart.Champion && night.Champion is not null)
            {
                RequireSameConfiguration(night.Champion);
                LoKrAdapter adapter = Import(model, night, ModelName, trainable: true, bias: 0);
                foreach (string warning in adapter.Warnings)
                {
                    _services.OnWarning(warning);
                }
            }
            else
            {
                foreach (string warning in model.AddAdapter(_job.Configuration, ModelName, _job.Training.Seed, restart: true).Warnings)
                {
                    _services.OnWarning(warning);
                }
            }

            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    // What the job leaves to the model is not compared.
    private void RequireSameConfiguration(LoKrAdapterVersion champion)
    {
        LoKrConfig own = _job.Configuration;
        LoKrConfig theirs = LoKrConfigJson.Read(Path.Combine(champion.Path, PeftAdapterFolder.ConfigFile), out _);
        LoKrConfig expected = theirs with
        {
            TargetModules = own.TargetModules is null ? null : theirs.TargetModules,
            ModulesToSave = own.ModulesToSave is null ? null : theirs.ModulesToSave,
            TaskType = own.TaskType is null ? null : theirs.TaskType,
            AutoMapping = null,
            BaseModelNameOrPath = null,
            Revision = null,
            InferenceMode = false,
        };
        if (!JsonNode.DeepEquals(JsonNode.Parse(LoKrConfigJson.Write(own)), JsonNode.Parse(LoKrConfigJson.Write(expected))))
        {
            throw new LoKrException(ErrorIds.JobInvalid, LoKrErrorKind.InvalidData,
                FormattableString.Invariant($"'configuration' of '{_job.Path}' ({own}) is not that of version {champion.Version} ({theirs}), which the training would start from."),
                "Start from the base, or keep the configuration.") { Target = "configuration" };
        }
    }

    private static LoKrAdapter Import(LoKrModel model, JobNight night, string name, bool trainable, double bias) => night.KnownLabels < night.Labels?.Count
        ? HeadGrowth.Import(model, night.Champion!.Path, name, trainable, bias)
        : AdapterImporter.Import(model, night.Champion!.Path, name: name, trainable: trainable).Values.Single();

    // Columns have the names that are expected since the rows were read.
    private ITrainingTask CreateTask(LoKrModel model, IReadOnlyList<DataRow> rows, CancellationToken cancellation) =>
        TrainingTaskFactory.Create(model, rows, _job.Training, _survey.BeginReading(), onProgress: null, cancellation);

    private LoKrTrainingResult Train(JobNight night, LoKrModel model, RunFolder folder, CancellationToken cancellation)
    {
        _survey.Day = RunRecorder.DayOf(new() { Path = folder.Path }, _workers);
        using ITrainingTask task = CreateTask(model, night.Rows, cancellation);
        using ITrainingTask? validation = night.ValidationRows.Count == 0 ? null : CreateTask(model, night.ValidationRows, cancellation);
        TrainingPlan plan = Trainer.Plan(model, task, Options);
        foreach (string warning in plan.Warnings.Concat(validation?.Warnings ?? []).Concat(Options.IgnoredOptions(validation is not null)))
        {
            _services.OnWarning(warning);
        }

        foreach (string note in task.Notes)
        {
            _services.OnLog(note);
        }

        _services.OnLog($"{(folder.Exists ? "Going on in" : "Training in")} {folder.Path}. {plan}");
        foreach (string note in plan.Notes)
        {
            _services.OnLog(note);
        }

        RunOptions options = new()
        {
            Path = folder.Path,
            CheckpointEvery = _job.Runs.CheckpointEvery,
            CheckpointLimit = _job.Runs.CheckpointLimit,
            MinimumFreeSpace = _job.Runs.MinimumFreeSpace,
        };
        LoKrTrainingResult result = RunRecorder.Train(options, model, task, validation, Options, _services.OnStep, _services.OnEvaluation, _services.OnRun, cancellation);
        _services.OnLog($"{result}.");
        return result;
    }

    // The newest run of the same inputs: interrupted ones go on, finished ones need no more training.
    private RunFolder FindRun(JobNight night)
    {
        string start = _job.Registry?.StartFrom is JobStart.Champion ? FormattableString.Invariant($"{night.Champion?.Version}") : "";
        string mark = "-" + (night.Inputs with { Configuration = night.Inputs.Configuration + start }).Digest[..12];
        string? found = !Directory.Exists(_folder) ? null : Directory.EnumerateDirectories(_folder)
            .Where(path => Path.GetFileName(path).EndsWith(mark, StringComparison.Ordinal)).Max(StringComparer.Ordinal);
        RunFolder folder = new(found ?? Path.Combine(_folder, _started.ToString("yyyyMMdd'T'HHmmss'Z'", CultureInfo.InvariantCulture) + mark));
        _survey.Day = RunRecorder.DayOf(new() { Path = folder.Path }, workers: null);
        return folder;
    }

    private LoKrJobResult Promote(JobNight night, LoKrModel model, RunFolder folder, LoKrJobResult trained, CancellationToken cancellation)
    {
        if (_job.Gate is not null)
        {
            LoKrGateResult gate = AskGate(night, model, _job.Gate, cancellation);
            folder.WriteGate(gate);
            trained = trained with { Gate = gate.ToString() };
            _services.OnLog($"Gate {gate}");
            if (!gate.Passed)
            {
                return Retain(trained with { State = LoKrJobState.NotBetter, ExitCode = RunExitCodes.NotBetter, Message = string.Join(" ", gate.Reasons) });
            }
        }

        if (_registry is null)
        {
            return Retain(trained);
        }

        string run = folder.Read().Id;
        LoKrAdapterVersion version = Registered(run) ?? _registry.Register(_job.AdapterName, folder.Path, new()
        {
            Parent = night.Champion?.Version,
            Gate = trained.Gate,
            Labels = night.Labels,
            Job = _job.Name,
            JobInputs = night.Inputs,
        });
        _registry.Publish(_job.AdapterName, version.Version, _job.Alias);
        _services.OnLog(FormattableString.Invariant($"Version {version.Version} of {_job.AdapterName} is the {_job.Alias} in {_registry.Path}."));
        return Retain(trained with
        {
            State = LoKrJobState.Published,
            Version = version.Version,
            Message = FormattableString.Invariant($"Version {version.Version} of {_job.AdapterName} is the {_job.Alias}{(night.Champion is null ? "" : $", in place of version {night.Champion.Version}")}."),
        });
    }

    // A job that was killed between its registration and its publication.
    private LoKrAdapterVersion? Registered(string run) => _registry!.Contains(_job.AdapterName) ? _registry.GetVersions(_job.AdapterName).FirstOrDefault(version => version.Card.Run == run) : null;

    private LoKrGateResult AskGate(JobNight night, LoKrModel model, JobGate gate, CancellationToken cancellation)
    {
        IReadOnlyList<DataRow> rows = gate.Data.Count == 0 ? night.ValidationRows : _survey.Read(gate.Data, "gate.data", cancellation);
        AdapterReference? champion = null;
        if (night.Champion is not null)
        {
            // A label that it does not know is never its answer.
            string name = ModelName == "champion" ? "champion-in-use" : "champion";
            Import(model, night, name, trainable: false, HeadGrowth.Never);
            champion = AdapterReference.OfModel(model, name);
        }

        using ITrainingTask task = CreateTask(model, rows, cancellation);
        return PromotionGate.Evaluate(model, champion, AdapterReference.OfModel(model, ModelName), task, new()
        {
            Metric = gate.Metric,
            MinimumImprovement = gate.MinimumImprovement,
            MaximumRegression = gate.MaximumRegression,
            Confidence = gate.Confidence,
            BatchSize = _job.Training.EvaluationBatchSize ?? _job.Training.BatchSize,
            MaxLength = _job.Training.MaxLength,
        }, _services.OnEvaluation, cancellation) with
        {
            Champion = night.Champion?.ToString(),
        };
    }

    private LoKrJobResult Retain(LoKrJobResult result)
    {
        IReadOnlyList<int> versions = _job.Retention.Versions is int keep && _registry is not null && _registry.Contains(_job.AdapterName) ? _registry.Retain(_job.AdapterName, keep) : [];
        List<string> runs = [];
        foreach (RunFolder folder in Old(result.Run))
        {
            folder.Remove();
            runs.Add(folder.Path);
        }

        string? report = WriteReport(result.Run!);
        if (versions.Count + runs.Count > 0)
        {
            _services.OnLog($"Removed {JobSurvey.Count(versions.Count, "version")} and {JobSurvey.Count(runs.Count, "run")}.");
        }

        return result with { RemovedVersions = versions, RemovedRuns = runs, Report = report };
    }

    private string? WriteReport(string run)
    {
        if (_job.Report is null)
        {
            return null;
        }

        string folder = _job.FullPath(_job.Report.Path);
        FileSystem.CreateFolder(folder);
        string path = Path.Combine(folder, $"{_job.Name}-{Path.GetFileName(run)}{(_job.Report.As is ReportFormat.Html ? ".html" : ".md")}");
        AtomicFile.WriteText(path, RunReport.Create(new RunFolder(run), _job.Report.As, _registry));
        _services.OnLog($"Report in {path}.");
        return path;
    }

    private RunFolder[] Old(string? current) => _job.Retention.Runs is not int keep ? [] :
    [
        .. Directory.EnumerateDirectories(_folder).OrderDescending(StringComparer.Ordinal).Select(static path => new RunFolder(path))
            .Where(folder => folder.Exists && folder.Path != current && folder.Read().State is not RunState.Running).Skip(keep - 1),
    ];

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

/// <summary>What a job would do. Flat and serializable.</summary>
public sealed record JobPlan
{
    /// <summary>Name of the job.</summary>
    public required string Job { get; init; }

    /// <summary>The version in use; null without one.</summary>
    public int? Champion { get; init; }

    /// <summary>Rows to train on.</summary>
    public required int RowCount { get; init; }

    /// <summary>Whether data, base model and configuration are those of the version in use, so that nothing is done.</summary>
    public bool IsNothingNew { get; init; }

    /// <summary>Labels that the head is grown for.</summary>
    public IReadOnlyList<string> NewLabels { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>The training; null where nothing is done.</summary>
    public TrainingPlan? Training { get; init; }

    /// <summary>The run folder.</summary>
    public string? Run { get; init; }

    /// <summary>Whether the run in the folder goes on.</summary>
    public bool IsContinued { get; init; }

    /// <summary>Whether a gate decides about the result.</summary>
    public bool Gate { get; init; }

    /// <summary>The registry; null without one.</summary>
    public string? Registry { get; init; }

    /// <summary>Name of the adapter in the registry.</summary>
    public string? Adapter { get; init; }

    /// <summary>The alias that gets the version.</summary>
    public string? Alias { get; init; }

    /// <summary>The plan in sentences.</summary>
    public override string ToString() => IsNothingNew
        ? FormattableString.Invariant($"Nothing is new: data, base model and configuration are those of version {Champion}.")
        : $"{(NewLabels.Count == 0 ? "" : $"Grow the head for {NewLabels}. ")}{(IsContinued ? "Go on" : "Begin")} in {Run}. {Training}"
            + (Gate ? $" Compare it with {(Champion is null ? "the base model" : FormattableString.Invariant($"version {Champion}"))}." : "")
            + (Registry is null ? "" : $" {(Gate ? "If it is better, register" : "Register")} it as {Adapter} in {Registry} and let {Alias} mean it.");
}
