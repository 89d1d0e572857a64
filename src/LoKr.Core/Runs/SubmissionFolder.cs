using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runs;

/// <summary>
/// A list of jobs on disk, and how far each is: <c>submission.json</c> (jobs with the hashes of what they work on, and every attempt),
/// <c>jobs.txt</c> (a job file a line: line 7 is the job of index 7), <c>jobs/0007/</c> with <c>started</c> and <c>exit</c> (a line of what starts the
/// process), <c>result.json</c> (<see cref="LoKrJobResult"/>, of the process itself), <c>log.txt</c> and, to end the job, <c>stop</c>.
/// </summary>
/// <remarks>
/// <c>started</c> is <c>ATTEMPT RESTART SECONDS MACHINE</c>, <c>exit</c> is <c>ATTEMPT RESTART SECONDS CODE</c>, with seconds since 1970 in UTC: a shell
/// script can write both. What they say is believed before what a scheduler remembers, and schedulers forget.
/// </remarks>
public sealed class SubmissionFolder
{
    private const string StartedFile = "started";
    private const string ExitFile = "exit";
    private const string StopFile = "stop";

    private static readonly JsonErrors s_errors = new(ErrorIds.SubmissionInvalid, ErrorIds.SubmissionInvalid, "Restore the file from a copy, or submit the jobs to another folder.");

    /// <summary>Names a folder; nothing is read or written.</summary>
    /// <param name="path">The submission folder.</param>
    public SubmissionFolder(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        Path = System.IO.Path.GetFullPath(path);
    }

    /// <summary>Full path.</summary>
    public string Path { get; }

    /// <summary>A job file a line.</summary>
    public string ListFile => Of("jobs.txt");

    /// <summary>Whether there is a submission in the folder.</summary>
    public bool Exists => File.Exists(StateFile);

    private string StateFile => Of("submission.json");

    private string LockFile => Of(".submission.lock");

    /// <summary>The files of a job.</summary>
    /// <param name="index">Index of the job.</param>
    public string FolderOf(int index) => Of(System.IO.Path.Combine("jobs", index.ToString("D4", CultureInfo.InvariantCulture)));

    /// <summary>File for the output of the process of a job.</summary>
    /// <param name="index">Index of the job.</param>
    public string LogOf(int index) => System.IO.Path.Combine(FolderOf(index), "log.txt");

    /// <summary>Takes the right to start the jobs of the list on this machine; disposing releases it, and so does the end of the process.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunBusy</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public IDisposable Lock() => RunLock.Take(Path, LockFile);

    /// <summary>Whether a process holds <see cref="Lock"/>.</summary>
    public bool IsLocked => RunLock.IsHeld(LockFile);

    /// <summary>Decides which jobs of a list are run: those that are new, missing, stopped or changed, or failed with what another start may not meet.</summary>
    /// <param name="requests">Jobs with the hashes of what they work on.</param>
    /// <param name="states">The states of the jobs that the folder has (<see cref="Read"/>).</param>
    /// <param name="force">Runs all that no process works on.</param>
    /// <exception cref="LoKrException"><c>LoKr.InvalidArgument</c>: two jobs have the same folder of runs.</exception>
    public SubmissionPlan Plan(IReadOnlyList<SubmissionRequest> requests, IReadOnlyList<LoKrSubmissionJob> states, bool force)
    {
        ArgumentNullException.ThrowIfNull(requests);
        ArgumentNullException.ThrowIfNull(states);
        List<SubmissionEntry> entries = [.. Exists ? Load().Jobs : []];
        Dictionary<string, int> known = entries.ToDictionary(static entry => entry.Path, static entry => entry.Index, StringComparer.Ordinal);
        List<SubmissionEntry> planned = [];
        foreach (SubmissionRequest request in requests.DistinctBy(static request => request.Job.Path, StringComparer.Ordinal))
        {
            string runs = JobRunner.FolderOf(request.Job);
            SubmissionEntry? former = known.TryGetValue(request.Job.Path, out int index) ? entries[index - 1] : null;
            LoKrSubmissionJob? state = former is null ? null : states.FirstOrDefault(state => state.Index == index);
            IReadOnlyList<SubmissionChange> changes = former is null ? [] : request.Inputs.ChangesFrom(former.Inputs);
            SubmissionReason reason = state is null ? SubmissionReason.New
                : state.State is SubmissionJobState.Pending or SubmissionJobState.Running ? SubmissionReason.InProgress
                : force ? SubmissionReason.Forced
                : changes.Count > 0 ? SubmissionReason.Changed
                : !state.CanContinue ? SubmissionReason.Unchanged
                : state.State is SubmissionJobState.Failed ? SubmissionReason.Failed
                : state.Started is null ? SubmissionReason.Missing
                : SubmissionReason.Stopped;
            SubmissionEntry entry = new()
            {
                Index = former?.Index ?? entries.Count + 1,
                Name = request.Job.Name,
                Path = request.Job.Path,
                Folder = runs,
                // A job that is being done was submitted with what it had then.
                Inputs = reason is SubmissionReason.InProgress ? former!.Inputs : request.Inputs,
                Reason = reason,
                Changes = changes,
                Attempt = former?.Attempt ?? 0,
            };
            planned.Add(entry);
            if (former is null)
            {
                entries.Add(entry);
                known[entry.Path] = entry.Index;
            }
            else
            {
                entries[index - 1] = entry;
            }
        }

        if (entries.GroupBy(static entry => entry.Folder, StringComparer.Ordinal).FirstOrDefault(static group => group.Count() > 1) is { } same)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"{string.Join(" and ", same.Select(static entry => $"'{entry.Path}'"))} have the same folder of runs, '{same.Key}'.", "Give the jobs different names.") { Target = same.First().Path };
        }

        return new(entries, planned);
    }

    /// <summary>Writes the list with a new attempt; the files of the jobs that it runs begin anew.</summary>
    /// <param name="plan">The jobs.</param>
    /// <param name="options">How they are run.</param>
    /// <returns>Number of the attempt.</returns>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>, <c>LoKr.DiskFull</c>.</exception>
    public int Write(SubmissionPlan plan, SubmissionOptions options)
    {
        ArgumentNullException.ThrowIfNull(plan);
        FileSystem.CreateFolder(Path);
        IReadOnlyList<SubmissionAttempt> former = Exists ? Load().Attempts : [];
        int number = former.Count + 1;
        HashSet<int> submitted = [.. plan.Submitted];
        foreach (int index in submitted)
        {
            string folder = FolderOf(index);
            FileSystem.CreateFolder(folder);
            foreach (string name in (string[])[StartedFile, ExitFile, StopFile, "result.json"])
            {
                Delete(System.IO.Path.Combine(folder, name));
            }
        }

        AtomicFile.WriteText(ListFile, string.Concat(plan.Entries.Select(static entry => entry.Path + "\n")));
        JsonRecords.Write(StateFile, new SubmissionFile
        {
            Options = options,
            Attempts = [.. former, new() { Number = number, Created = DateTime.UtcNow, Scheduler = options.Scheduler, Indexes = [.. submitted.Order()] }],
            Jobs = [.. plan.Entries.Select(entry => submitted.Contains(entry.Index) ? entry with { Attempt = number } : entry)],
        });
        return number;
    }

    /// <summary>Keeps the scheduler's name for the last attempt.</summary>
    /// <param name="id">The name.</param>
    /// <exception cref="LoKrException"><c>LoKr.SubmissionInvalid</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public void WriteId(string id)
    {
        SubmissionFile file = Load();
        JsonRecords.Write(StateFile, file with { Attempts = [.. file.Attempts.SkipLast(1), file.Attempts[^1] with { SchedulerId = id }] });
    }

    /// <summary>The last attempt: its number, its jobs, and how they are run.</summary>
    /// <exception cref="LoKrException"><c>LoKr.SubmissionNotFound</c>, <c>LoKr.SubmissionInvalid</c>.</exception>
    public (SubmissionAttempt Attempt, SubmissionOptions Options) ReadAttempt()
    {
        SubmissionFile file = Load();
        return (file.Attempts[^1], file.Options);
    }

    /// <summary>Notes that a process of a job begins.</summary>
    public void WriteStarted(int index, int attempt, int restart) => WriteLine(index, StartedFile, attempt, restart, Environment.MachineName);

    /// <summary>Notes how the process of a job ended.</summary>
    public void WriteExit(int index, int attempt, int restart, int code) => WriteLine(index, ExitFile, attempt, restart, code.ToString(CultureInfo.InvariantCulture));

    /// <summary>Keeps a job from being started again.</summary>
    /// <param name="index">Index of the job.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>.</exception>
    public void RequestStop(int index)
    {
        FileSystem.CreateFolder(FolderOf(index));
        AtomicFile.WriteText(System.IO.Path.Combine(FolderOf(index), StopFile), FileLock.DescribeHolder() + "\n");
    }

    /// <summary>Whether a job is to end.</summary>
    /// <param name="index">Index of the job.</param>
    public bool IsStopRequested(int index) => File.Exists(System.IO.Path.Combine(FolderOf(index), StopFile));

    /// <summary>Asks the run that a job works on to end after its step, with a checkpoint. Without a run nothing happens: it may still begin.</summary>
    /// <param name="index">Index of the job.</param>
    /// <exception cref="LoKrException"><c>LoKr.SubmissionNotFound</c>, <c>LoKr.SubmissionInvalid</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public void StopRun(int index)
    {
        if (FindRun(Load().Jobs[index - 1], null) is { State: RunState.Running } run)
        {
            new RunFolder(run.Path).RequestStop();
        }
    }

    /// <summary>How far every job is, in the order of the list.</summary>
    /// <param name="query">Asks a scheduler for the tasks of its job arrays, by their ids; those that it does not know are left out.</param>
    /// <param name="isOwner">Whether the caller itself holds <see cref="Lock"/>, so that no other process starts jobs.</param>
    /// <exception cref="LoKrException"><c>LoKr.SubmissionNotFound</c>, <c>LoKr.SubmissionInvalid</c>, <c>LoKr.FileNotReadable</c>, and those of <paramref name="query"/>.</exception>
    public IReadOnlyList<LoKrSubmissionJob> Read(Func<IReadOnlyList<string>, IReadOnlyDictionary<(string Id, int Index), SubmissionTask>> query, bool isOwner = false)
    {
        ArgumentNullException.ThrowIfNull(query);
        SubmissionFile file = Load();
        SubmissionAttempt? AttemptOf(SubmissionEntry entry) => file.Attempts.ElementAtOrDefault(entry.Attempt - 1);
        string[] open = [.. file.Jobs.Where(entry => ReadLine(entry, ExitFile) is null or { Code: RunExitCodes.RunAgain })
            .Select(AttemptOf).Where(static attempt => attempt is { Scheduler: SubmissionScheduler.Slurm, SchedulerId: not null })
            .Select(static attempt => attempt!.SchedulerId!).Distinct(StringComparer.Ordinal)];
        IReadOnlyDictionary<(string, int), SubmissionTask> tasks = open.Length == 0 ? new Dictionary<(string, int), SubmissionTask>() : query(open);
        bool isLocked = !isOwner && IsLocked;

        // The files are read again behind these questions: a job that has ended meanwhile had noted it by then.
        return [.. file.Jobs.Select(entry => Describe(entry, AttemptOf(entry), file.Options.Scheduler, tasks, isLocked))];
    }

    /// <summary>The counts of jobs.</summary>
    /// <param name="jobs">The jobs, of <see cref="Read"/>.</param>
    /// <exception cref="LoKrException"><c>LoKr.SubmissionNotFound</c>, <c>LoKr.SubmissionInvalid</c>.</exception>
    public LoKrSubmission Summarize(IReadOnlyList<LoKrSubmissionJob> jobs)
    {
        ArgumentNullException.ThrowIfNull(jobs);
        (SubmissionAttempt attempt, SubmissionOptions options) = ReadAttempt();
        HashSet<int> submitted = [.. attempt.Indexes];
        int Count(SubmissionJobState state) => jobs.Count(job => job.State == state);
        return new()
        {
            Path = Path,
            Scheduler = options.Scheduler,
            Id = attempt.SchedulerId,
            Attempt = attempt.Number,
            Created = attempt.Created,
            JobCount = jobs.Count,
            SubmittedCount = submitted.Count,
            PendingCount = Count(SubmissionJobState.Pending),
            RunningCount = Count(SubmissionJobState.Running),
            CompletedCount = Count(SubmissionJobState.Completed),
            FailedCount = Count(SubmissionJobState.Failed),
            StoppedCount = Count(SubmissionJobState.Stopped),
            ContinuableCount = jobs.Count(static job => job.CanContinue),
            Reasons = Counts(jobs.Where(job => submitted.Contains(job.Index)).Select(static job => $"{job.Reason}")),
            ExitCodes = Counts(jobs.Where(static job => job.ExitCode is not null).OrderBy(static job => job.ExitCode).Select(static job => FormattableString.Invariant($"{job.ExitCode}"))),
        };
    }

    private static Dictionary<string, int> Counts(IEnumerable<string> texts) => texts.GroupBy(static text => text, StringComparer.Ordinal).ToDictionary(static group => group.Key, static group => group.Count());

    private LoKrSubmissionJob Describe(SubmissionEntry entry, SubmissionAttempt? attempt, SubmissionScheduler last, IReadOnlyDictionary<(string, int), SubmissionTask> tasks, bool isLocked)
    {
        ProcessLine? started = ReadLine(entry, StartedFile);
        ProcessLine? exit = ReadLine(entry, ExitFile);
        SubmissionTask? task = attempt?.SchedulerId is string id ? tasks.GetValueOrDefault((id, entry.Index)) : null;
        if (attempt?.Scheduler is SubmissionScheduler.Local)
        {
            task = LocalTask(entry, started, exit, isLocked);
        }

        // A job that stopped with a checkpoint may be started again; any other code is its last one.
        bool isOver = attempt is not null && (exit is { Code: not RunExitCodes.RunAgain } || task is not { IsActive: true });
        int? code = isOver ? exit?.Code ?? task?.ExitCode : null;
        SubmissionJobState state = !isOver ? task is { IsRunning: true } ? SubmissionJobState.Running : SubmissionJobState.Pending
            : exit is null || code is RunExitCodes.RunAgain or > 128 ? SubmissionJobState.Stopped
            : code is RunExitCodes.Success or RunExitCodes.NothingToDo or RunExitCodes.NotBetter ? SubmissionJobState.Completed
            : SubmissionJobState.Failed;
        LoKrJobResult? result = isOver && exit is not null ? ReadResult(entry.Index) : null;
        LoKrRun? run = started is null ? null : FindRun(entry, result);
        return new()
        {
            Submission = Path,
            Index = entry.Index,
            Job = entry.Name,
            Path = entry.Path,
            State = state,
            ExitCode = code,
            CanContinue = state is SubmissionJobState.Stopped || (state is SubmissionJobState.Failed && code is not (RunExitCodes.Invalid or RunExitCodes.Diverged)),
            Reason = entry.Reason,
            Changes = entry.Changes,
            Outcome = result?.State,
            ErrorId = result?.ErrorId,
            Message = result?.Message ?? Explain(state, started is not null, code, run, task),
            Run = result?.Run ?? run?.Path,
            Step = run?.Step,
            TotalSteps = run?.TotalSteps,
            Version = result?.Version,
            Scheduler = attempt?.Scheduler ?? last,
            SchedulerId = attempt?.SchedulerId is not string array ? null : attempt.Scheduler is SubmissionScheduler.Local ? array : FormattableString.Invariant($"{array}_{entry.Index}"),
            Node = task?.Node ?? started?.Text,
            Restarts = (started ?? exit)?.Restart ?? 0,
            Started = started?.Time,
            Ended = isOver ? exit?.Time : null,
            LogPath = LogOf(entry.Index),
        };
    }

    // What a scheduler of this machine would say: its process is there as long as the lock is held, and a job that it left behind has a lock of its own.
    private static SubmissionTask LocalTask(SubmissionEntry entry, ProcessLine? started, ProcessLine? exit, bool isLocked)
    {
        bool isOpen = started is not null && (exit is null || exit.Restart < started.Restart);
        bool isRunning = isOpen && (isLocked || JobRunner.IsBusy(entry.Folder));
        return new() { IsActive = isRunning || isLocked, IsRunning = isRunning };
    }

    private static string? Explain(SubmissionJobState state, bool wasStarted, int? code, LoKrRun? run, SubmissionTask? task) => state switch
    {
        SubmissionJobState.Pending or SubmissionJobState.Running => task?.Text,
        SubmissionJobState.Stopped when code is RunExitCodes.RunAgain => $"It stopped with a checkpoint{(run?.Reason is string reason ? $" ({reason})" : "")}.",
        _ when task?.Text is string text && code is null or > 128 => FormattableString.Invariant($"The scheduler says {text}{(code is null ? "" : $"; signal {code - 128} ended the process")}."),
        SubmissionJobState.Stopped when !wasStarted => "It was not started.",
        SubmissionJobState.Stopped when code is null => "Its process is gone.",
        SubmissionJobState.Stopped => FormattableString.Invariant($"Signal {code - 128} ended the process."),
        _ => null,
    };

    // The run that the job works on now: of the result, else the newest one.
    private static LoKrRun? FindRun(SubmissionEntry entry, LoKrJobResult? result)
    {
        string? path = result is not null ? result.Run
            : Directory.Exists(entry.Folder) ? Directory.EnumerateDirectories(entry.Folder).Where(static folder => new RunFolder(folder).Exists).Max(StringComparer.Ordinal)
            : null;

        // Retention may have removed it.
        return path is not null && new RunFolder(path) is { Exists: true } folder ? folder.Read() : null;
    }

    private LoKrJobResult? ReadResult(int index)
    {
        string path = System.IO.Path.Combine(FolderOf(index), "result.json");
        return File.Exists(path) ? JsonRecords.Read<LoKrJobResult>(path, s_errors) : null;
    }

    private void WriteLine(int index, string name, int attempt, int restart, string text) => AtomicFile.WriteText(
        System.IO.Path.Combine(FolderOf(index), name), string.Create(CultureInfo.InvariantCulture, $"{attempt} {restart} {DateTimeOffset.UtcNow.ToUnixTimeSeconds()} {text}\n"));

    private ProcessLine? ReadLine(SubmissionEntry entry, string name)
    {
        string path = System.IO.Path.Combine(FolderOf(entry.Index), name);
        if (!File.Exists(path))
        {
            return null;
        }

        string text = FileSystem.ReadText(path);
        string[] parts = text.TrimEnd().Split(' ', 4);
        int code = 0;
        if (parts.Length < 4 || !int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int attempt) || !int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out int restart)
            || !long.TryParse(parts[2], NumberStyles.None, CultureInfo.InvariantCulture, out long seconds) || (name == ExitFile && !int.TryParse(parts[3], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out code)))
        {
            throw new LoKrException(ErrorIds.SubmissionInvalid, LoKrErrorKind.InvalidData, $"'{path}' is not valid: '{text.TrimEnd()}'.", s_errors.Advice) { Target = path };
        }

        return attempt == entry.Attempt ? new(restart, DateTimeOffset.FromUnixTimeSeconds(seconds).UtcDateTime, parts[3], code) : null;
    }

    private SubmissionFile Load() => Exists ? JsonRecords.Read<SubmissionFile>(StateFile, s_errors)
        : throw new LoKrException(ErrorIds.SubmissionNotFound, LoKrErrorKind.NotFound, $"'{Path}' has no submission.", "Check the path.") { Target = Path };

    private static void Delete(string path)
    {
        try
        {
            Contention.DeleteFile(path);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(path, exception);
        }
    }

    private string Of(string name) => System.IO.Path.Combine(Path, name);

    /// <summary>Record of the starter of a process.</summary>
    private sealed record ProcessLine(int Restart, DateTime Time, string Text, int Code);

    private sealed record SubmissionFile
    {
        public int Format { get; init; } = 1;

        public required SubmissionOptions Options { get; init; }

        public required IReadOnlyList<SubmissionAttempt> Attempts { get; init; }

        public required IReadOnlyList<SubmissionEntry> Jobs { get; init; }
    }
}

/// <summary>A job that is to be submitted.</summary>
/// <param name="Job">The job.</param>
/// <param name="Inputs">Hashes of what it works on.</param>
public sealed record SubmissionRequest(LoKrJob Job, SubmissionInputs Inputs);

/// <summary>Which jobs of a list are run, and why.</summary>
public sealed class SubmissionPlan
{
    internal SubmissionPlan(IReadOnlyList<SubmissionEntry> entries, IReadOnlyList<SubmissionEntry> planned) => (Entries, Planned) = (entries, planned);

    /// <summary>Indexes of the jobs that are run.</summary>
    public IReadOnlyList<int> Submitted => [.. Planned.Where(static entry => entry.Reason is not (SubmissionReason.Unchanged or SubmissionReason.InProgress)).Select(static entry => entry.Index)];

    /// <summary>All jobs of the folder, those of former lists included.</summary>
    internal IReadOnlyList<SubmissionEntry> Entries { get; }

    /// <summary>The jobs of the list.</summary>
    internal IReadOnlyList<SubmissionEntry> Planned { get; }

    /// <summary>The plan in sentences: how many jobs are run for each reason, with the names of the first ones.</summary>
    public override string ToString()
    {
        string[] reasons = [.. Planned.Where(static entry => entry.Reason is not (SubmissionReason.Unchanged or SubmissionReason.InProgress))
            .GroupBy(static entry => entry.Changes.Count > 0 && entry.Reason is SubmissionReason.Changed ? $"{entry.Reason} ({string.Join(", ", entry.Changes)})" : $"{entry.Reason}", StringComparer.Ordinal)
            .Select(static group => FormattableString.Invariant($"{group.Count()} {group.Key}: {string.Join(", ", group.Take(5).Select(static entry => entry.Name))}{(group.Count() > 5 ? ", …" : "")}"))];
        return FormattableString.Invariant($"{Submitted.Count} of {Planned.Count} jobs{(reasons.Length == 0 ? "" : $" ({string.Join("; ", reasons)})")}");
    }
}

/// <summary>One time that the jobs of a list were handed to a scheduler.</summary>
public sealed record SubmissionAttempt
{
    /// <summary>Its number, from 1.</summary>
    public required int Number { get; init; }

    /// <summary>When, in UTC.</summary>
    public required DateTime Created { get; init; }

    /// <summary>The scheduler.</summary>
    public required SubmissionScheduler Scheduler { get; init; }

    /// <summary>The scheduler's name for it; null before it has one.</summary>
    public string? SchedulerId { get; init; }

    /// <summary>Indexes of its jobs, in order.</summary>
    public required IReadOnlyList<int> Indexes { get; init; }
}

/// <summary>A scheduler's answer about one job.</summary>
public sealed record SubmissionTask
{
    /// <summary>Whether it waits or runs.</summary>
    public required bool IsActive { get; init; }

    /// <summary>Whether it runs.</summary>
    public required bool IsRunning { get; init; }

    /// <summary>The scheduler's word for the state, and why; null where there is nothing to say.</summary>
    public string? Text { get; init; }

    /// <summary>The machine.</summary>
    public string? Node { get; init; }

    /// <summary>The exit code of its process, where the scheduler kept it.</summary>
    public int? ExitCode { get; init; }
}

/// <summary>A job of the list, as the folder keeps it.</summary>
internal sealed record SubmissionEntry
{
    public required int Index { get; init; }

    public required string Name { get; init; }

    public required string Path { get; init; }

    /// <summary>The folder of the job's runs.</summary>
    public required string Folder { get; init; }

    public required SubmissionInputs Inputs { get; init; }

    public required SubmissionReason Reason { get; init; }

    public IReadOnlyList<SubmissionChange> Changes { get; init => field = ValueList.Of(value); } = ValueList.Of<SubmissionChange>([]);

    /// <summary>Number of the last attempt that ran it; 0 before the first one.</summary>
    public required int Attempt { get; init; }
}
