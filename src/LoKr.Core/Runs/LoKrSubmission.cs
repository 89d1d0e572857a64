using LoKr.Core.IO;

namespace LoKr.Core.Runs;

/// <summary>Schedulers of the jobs of a submission.</summary>
public enum SubmissionScheduler
{
    /// <summary>This machine: child processes, as many as fit its cores.</summary>
    Local,

    /// <summary>Slurm: one job array.</summary>
    Slurm,
}

/// <summary>How many jobs of a list were handed to a scheduler, and how far they are. Flat and serializable.</summary>
public sealed record LoKrSubmission
{
    /// <summary>The submission folder.</summary>
    public required string Path { get; init; }

    /// <summary>Scheduler of the jobs.</summary>
    public required SubmissionScheduler Scheduler { get; init; }

    /// <summary>The scheduler's own name for the last attempt: of Slurm the id of the job array, else the process that starts the jobs. Null where nothing had to be run.</summary>
    public string? Id { get; init; }

    /// <summary>How often the list was submitted.</summary>
    public required int Attempt { get; init; }

    /// <summary>When it was submitted the last time, in UTC.</summary>
    public required DateTime Created { get; init; }

    /// <summary>Jobs of the list.</summary>
    public required int JobCount { get; init; }

    /// <summary>Jobs that the last attempt runs; the others had ended before, with the same job file, data and base model.</summary>
    public required int SubmittedCount { get; init; }

    /// <summary>Jobs that wait.</summary>
    public required int PendingCount { get; init; }

    /// <summary>Jobs that are being done.</summary>
    public required int RunningCount { get; init; }

    /// <summary>Jobs that are done.</summary>
    public required int CompletedCount { get; init; }

    /// <summary>Jobs that ended with an error.</summary>
    public required int FailedCount { get; init; }

    /// <summary>Jobs that were stopped or killed, or ran out of time.</summary>
    public required int StoppedCount { get; init; }

    /// <summary>Jobs that are run again when the list is submitted again.</summary>
    public required int ContinuableCount { get; init; }

    /// <summary>Why the jobs of the last attempt were run, and how many for each reason.</summary>
    public IReadOnlyDictionary<string, int> Reasons { get; init => field = ValueList.Of(value); } = ValueList.Of(new Dictionary<string, int>());

    /// <summary>Exit codes of the jobs that ended, and how many there are of each.</summary>
    public IReadOnlyDictionary<string, int> ExitCodes { get; init => field = ValueList.Of(value); } = ValueList.Of(new Dictionary<string, int>());

    /// <summary>Whether no job waits or is being done.</summary>
    public bool IsFinished => PendingCount + RunningCount == 0;

    /// <summary>The submission folder, so that a submission can stand for its path.</summary>
    public override string ToString() => Path;
}

/// <summary>One job of a submission. Flat and serializable.</summary>
public sealed record LoKrSubmissionJob
{
    /// <summary>The submission folder.</summary>
    public required string Submission { get; init; }

    /// <summary>Number of the job in the list, from 1: the index of a job array. It never changes.</summary>
    public required int Index { get; init; }

    /// <summary>Name of the job.</summary>
    public required string Job { get; init; }

    /// <summary>The job file.</summary>
    public required string Path { get; init; }

    /// <summary>How far the job is.</summary>
    public required SubmissionJobState State { get; init; }

    /// <summary>The exit code of its process; null while there is none.</summary>
    public int? ExitCode { get; init; }

    /// <summary>Whether submitting the list again runs the job again, though nothing of it changed.</summary>
    public bool CanContinue { get; init; }

    /// <summary>Why the job was run, or was not, when the list was submitted the last time.</summary>
    public required SubmissionReason Reason { get; init; }

    /// <summary>Parts of it that are others than before.</summary>
    public IReadOnlyList<SubmissionChange> Changes { get; init => field = ValueList.Of(value); } = ValueList.Of<SubmissionChange>([]);

    /// <summary>How the job ended; null where its process could not say.</summary>
    public LoKrJobState? Outcome { get; init; }

    /// <summary>Id of the error that ended it; null without one.</summary>
    public string? ErrorId { get; init; }

    /// <summary>Tells in one sentence how it ended.</summary>
    public string? Message { get; init; }

    /// <summary>The run folder; null where nothing was trained.</summary>
    public string? Run { get; init; }

    /// <summary>Steps of the run that are complete; null without a run.</summary>
    public int? Step { get; init; }

    /// <summary>Steps of the whole run; null without a run.</summary>
    public int? TotalSteps { get; init; }

    /// <summary>Number of the version that was registered; null without one.</summary>
    public int? Version { get; init; }

    /// <summary>Scheduler of the job.</summary>
    public required SubmissionScheduler Scheduler { get; init; }

    /// <summary>The scheduler's name for the job.</summary>
    public string? SchedulerId { get; init; }

    /// <summary>The machine.</summary>
    public string? Node { get; init; }

    /// <summary>How often the job was started again by the scheduler, after it had stopped with a checkpoint.</summary>
    public int Restarts { get; init; }

    /// <summary>When it was started the last time, in UTC; null before.</summary>
    public DateTime? Started { get; init; }

    /// <summary>When it ended, in UTC; null before.</summary>
    public DateTime? Ended { get; init; }

    /// <summary>Output of the process.</summary>
    public required string LogPath { get; init; }

    /// <summary>The submission folder, so that a job can stand for the path of its submission.</summary>
    public override string ToString() => Submission;
}

/// <summary>How far a job of a submission is.</summary>
public enum SubmissionJobState
{
    /// <summary>It waits, for the first time or to go on.</summary>
    Pending,

    /// <summary>A process does it.</summary>
    Running,

    /// <summary>Done: published, nothing to do, or not better than what is in use (exit codes 0, 2 and 4).</summary>
    Completed,

    /// <summary>Ended by an error.</summary>
    Failed,

    /// <summary>Stopped with a checkpoint and not started again, killed, canceled, out of time, or lost with its machine.</summary>
    Stopped,
}

/// <summary>Why a job is run when its list is submitted.</summary>
public enum SubmissionReason
{
    /// <summary>It is in the list for the first time.</summary>
    New,

    /// <summary>It was in the list, and was never started.</summary>
    Missing,

    /// <summary>It was stopped or killed, or ran out of time.</summary>
    Stopped,

    /// <summary>It ended with an error that another start may not have.</summary>
    Failed,

    /// <summary>Its job file, its data or its base model changed.</summary>
    Changed,

    /// <summary>All jobs were asked for.</summary>
    Forced,

    /// <summary>It is not run: it is done, or it would end with the same error, and nothing of it changed.</summary>
    Unchanged,

    /// <summary>It is not run: it still waits or is being done.</summary>
    InProgress,
}

/// <summary>Parts of a job that can change between two submissions.</summary>
public enum SubmissionChange
{
    /// <summary>The job file.</summary>
    JobFile,

    /// <summary>The data, the validation data, or the data to compare on.</summary>
    Data,

    /// <summary>The base model.</summary>
    BaseModel,
}

/// <summary>SHA-256 hashes of what a job of a submission works on; null for what is not there.</summary>
public sealed record SubmissionInputs
{
    /// <summary>The job file.</summary>
    public required string JobFile { get; init; }

    /// <summary>The files of data, of validation data, and of data to compare on.</summary>
    public string? Data { get; init; }

    /// <summary>The base model, by its fingerprint.</summary>
    public string? BaseModel { get; init; }

    /// <summary>The hashes of a job. What is missing has none: the job itself will say so.</summary>
    /// <param name="job">The job.</param>
    /// <param name="models">Hashes of base models by their folders, for the next job with the same one.</param>
    /// <exception cref="LoKr.Core.Errors.LoKrException"><c>LoKr.FileNotReadable</c>, and the errors of a checkpoint that cannot be read.</exception>
    public static SubmissionInputs Of(LoKrJob job, IDictionary<string, string> models)
    {
        ArgumentNullException.ThrowIfNull(job);
        ArgumentNullException.ThrowIfNull(models);
        string[] data = [.. job.Data.Path.Concat(job.Data.Validation).Concat(job.Data.Reference).Concat(job.Gate?.Data ?? []).SelectMany(pattern => FilePatterns.Expand(job.FullPath(pattern)))];
        string folder = job.FullPath(job.Base.Path);
        if (!models.TryGetValue(folder, out string? model) && Directory.Exists(folder))
        {
            models[folder] = model = JobInputs.HashOfModel(folder);
        }

        return new() { JobFile = ContentHash.OfFile(job.Path), Data = data.Length == 0 ? null : JobInputs.HashOf(data), BaseModel = model };
    }

    /// <summary>Parts that are not the same as in others.</summary>
    /// <param name="others">The others.</param>
    internal IReadOnlyList<SubmissionChange> ChangesFrom(SubmissionInputs others) =>
    [
        .. JobFile == others.JobFile ? (SubmissionChange[])[] : [SubmissionChange.JobFile],
        .. Data == others.Data ? (SubmissionChange[])[] : [SubmissionChange.Data],
        .. BaseModel == others.BaseModel ? (SubmissionChange[])[] : [SubmissionChange.BaseModel],
    ];
}

/// <summary>How the jobs of a submission are run.</summary>
public sealed record SubmissionOptions
{
    /// <summary>Scheduler of the jobs.</summary>
    public required SubmissionScheduler Scheduler { get; init; }

    /// <summary>How many jobs run at the same time; null for no limit but the scheduler's.</summary>
    public int? MaxConcurrent { get; init; }

    /// <summary>Threads of each job.</summary>
    public int ThreadsPerJob { get; init; } = 1;

    /// <summary>Longest time of one start of a job; null for no limit but the scheduler's.</summary>
    public TimeSpan? TimeLimit { get; init; }

    /// <summary>How long before its end a job is told, so that it writes a checkpoint.</summary>
    public TimeSpan Notice => TimeLimit is TimeSpan limit && limit < TimeSpan.FromMinutes(12) ? limit / 6 : TimeSpan.FromMinutes(2);

    /// <summary>How often the scheduler starts a job again that stopped with a checkpoint (exit code 75).</summary>
    public int RestartLimit { get; init; } = 10;

    /// <summary>GPUs of each job.</summary>
    public int Gpu { get; init; }

    /// <summary>GPUs of this machine that the jobs share, as CUDA names them (0, 1); Slurm chooses by itself.</summary>
    public IReadOnlyList<string> Devices { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Partition of Slurm; null for the default.</summary>
    public string? Partition { get; init; }

    /// <summary>More options of sbatch, such as <c>--account=ml</c>.</summary>
    public IReadOnlyList<string> SchedulerOptions { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>A program and its arguments that do a job; the index of the job is added as the last one.</summary>
    public required IReadOnlyList<string> Command { get; init => field = ValueList.Of(value); }
}
