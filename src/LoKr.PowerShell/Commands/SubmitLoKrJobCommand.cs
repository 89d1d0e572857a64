using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Hands a list of jobs to a scheduler. When the list is submitted again, only what is missing, stopped, failed or changed is run.</summary>
[Cmdlet(VerbsLifecycle.Submit, "LoKrJob", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(LoKrSubmission))]
public sealed class SubmitLoKrJobCommand : PathCommand
{
    private readonly List<SubmissionRequest> _requests = [];
    private readonly Dictionary<string, string> _models = new(StringComparer.Ordinal);

    /// <summary>The scheduler of the jobs: Local, child processes of this machine, or Slurm, one job array.</summary>
    [Parameter]
    public SubmissionScheduler Scheduler { get; set; }

    /// <summary>The submission folder, which has the list, the logs and the states; it is created if it does not exist. The default is the folder submission in the deepest folder that holds all job files.</summary>
    [Parameter]
    [ArgumentCompleter(typeof(FolderCompleter))]
    [ValidateNotNullOrEmpty]
    public string? Destination { get; set; }

    /// <summary>How many jobs run at the same time. The default of Local is as many as fit the cores, and the GPUs with -Gpu; Slurm decides by itself.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int? MaxConcurrent { get; set; }

    /// <summary>Threads of each job. The default is what its job file says, or 1.</summary>
    [Parameter]
    [ValidateRange(1, 4096)]
    public int? ThreadsPerJob { get; set; }

    /// <summary>Longest time of one start of a job (20m, 2h). A job is told before, writes a checkpoint, and is started again. The default of Slurm is that of the partition.</summary>
    [Parameter]
    [DurationTransformation]
    public TimeSpan? TimeLimit { get; set; }

    /// <summary>How often a job is started again by itself that stopped with a checkpoint (exit code 75).</summary>
    [Parameter]
    [ValidateRange(0, int.MaxValue)]
    public int RestartLimit { get; set; } = 10;

    /// <summary>GPUs of each job.</summary>
    [Parameter]
    [ValidateRange(0, 64)]
    public int Gpu { get; set; }

    /// <summary>Partition of Slurm; the default is the default of Slurm.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Partition { get; set; }

    /// <summary>More options of sbatch, for example '--account=ml'.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[] SchedulerOption { get; set; } = [];

    /// <summary>PowerShell, and arguments before its own; the default is the one that runs.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[]? Shell { get; set; }

    /// <summary>Name or path of the module; the default is the one that runs.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Module { get; set; }

    /// <summary>Runs all jobs, also those that are done and unchanged.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Begin()
    {
        if (Scheduler is SubmissionScheduler.Local)
        {
            WriteWarnings(Ignored("without -Scheduler Slurm", nameof(Partition), nameof(SchedulerOption)));
        }
    }

    /// <inheritdoc/>
    protected override void Process() => ForEachPath(path =>
    {
        ShellText.RequireOneLine(path);
        LoKrJob job = JobScript.ReadJob(path);
        _requests.Add(new(job, SubmissionInputs.Of(job, _models)));
        Bar.ShowIfDue(null, $"{_requests.Count} jobs, {job.Name}");
    });

    /// <inheritdoc/>
    protected override void End()
    {
        Bar.Hide();
        if (_requests.Count == 0)
        {
            return;
        }

        SubmissionFolder folder = new(Destination is null ? System.IO.Path.Combine(FolderPaths.Common([.. _requests.Select(static request => request.Job.Folder)]), "submission") : Paths.New(Destination));
        ShellText.RequireOneLine(folder.Path);
        if (IsRehearsal)
        {
            ShouldProcess(folder.Path, $"Submit {folder.Plan(_requests, Read(folder, isOwner: false), Force)}");
            return;
        }

        SubmissionOptions options = Options(folder);
        FileSystem.CreateFolder(folder.Path);
        using (folder.Lock())
        {
            SubmissionPlan plan = folder.Plan(_requests, Read(folder, isOwner: true), Force);
            if (!ShouldProcess(folder.Path, $"Submit {plan}"))
            {
                return;
            }

            AtomicFile.WriteText(ScriptOf(folder), JobArrayScript.Create(ModuleName, System.IO.Path.GetFileName(folder.ListFile), null, "(Join-Path $PSScriptRoot 'jobs' $Index.ToString('D4') 'result.json')"));
            folder.Write(plan, options);
            WriteVerbose($"Submitted {plan}.");
        }

        if (folder.ReadAttempt().Attempt.Indexes.Count > 0)
        {
            folder.WriteId(Scheduler is SubmissionScheduler.Slurm
                ? SlurmScheduler.Start(folder, $"lokr-{System.IO.Path.GetFileName(System.IO.Path.GetDirectoryName(folder.Path))}")
                : LocalScheduler.Start(folder, ShellCommand, ModuleName, StopToken));
        }

        WriteObject(folder.Summarize(Read(folder, isOwner: false)));
    }

    private ProgressBar Bar => LastingBar("Reading jobs");

    private IReadOnlyList<string> ShellCommand => Shell ?? ShellProgram.Current();

    private string ModuleName => Module ?? ShellProgram.Manifest;

    private static string ScriptOf(SubmissionFolder folder) => System.IO.Path.Combine(folder.Path, "job.ps1");

    private static IReadOnlyList<LoKrSubmissionJob> Read(SubmissionFolder folder, bool isOwner) => folder.Exists ? folder.Read(SlurmScheduler.Query, isOwner) : [];

    private SubmissionOptions Options(SubmissionFolder folder)
    {
        string[] devices = Gpu == 0 || Scheduler is SubmissionScheduler.Slurm ? [] : Devices();
        if (Scheduler is SubmissionScheduler.Local && devices.Length < Gpu)
        {
            throw new LoKrException(ErrorIds.DeviceNotFound, LoKrErrorKind.Unavailable, $"A job needs {Gpu} GPUs, and this machine has {devices.Length} that libtorch can use.", null) { Target = nameof(Gpu) };
        }

        return new()
        {
            Scheduler = Scheduler,
            MaxConcurrent = MaxConcurrent,
            ThreadsPerJob = ThreadsPerJob ?? _requests.Max(static request => request.Job.Base.Threads ?? 1),
            TimeLimit = TimeLimit,
            RestartLimit = RestartLimit,
            Gpu = Gpu,
            Devices = devices,
            Partition = Partition,
            SchedulerOptions = SchedulerOption,
            Command = [.. ShellCommand, "-NoProfile", "-NonInteractive", "-File", ScriptOf(folder)],
        };
    }

    // Those that this process sees, by the names that other processes know them by.
    private string[] Devices()
    {
        string[]? visible = Environment.GetEnvironmentVariable("CUDA_VISIBLE_DEVICES")?.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        int count = EnsureRuntime().Devices.Count(static device => device.StartsWith("cuda:", StringComparison.Ordinal));
        return [.. Enumerable.Range(0, count).Select(number => visible?.ElementAtOrDefault(number) ?? FormattableString.Invariant($"{number}"))];
    }
}
