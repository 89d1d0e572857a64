using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes the files with which a scheduler runs a job every day, or Kubernetes a list of jobs.</summary>
[Cmdlet(VerbsData.Export, "LoKrSchedule", SupportsShouldProcess = true)]
[OutputType(typeof(FileInfo))]
public sealed class ExportLoKrScheduleCommand : LoKrCommand
{
    /// <summary>The job file; for Kubernetes also several, which become one Indexed Job. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ArgumentCompleter(typeof(JobFileCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string[] Path { get; set; } = [];

    /// <summary>The scheduler: Systemd, TaskScheduler, Cron, Kubernetes or Slurm.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    public JobScheduler As { get; set; }

    /// <summary>Time of the day (02:15), in the time zone of the scheduler. Without it Kubernetes gets a Job that runs once.</summary>
    [Parameter]
    public TimeOnly? At { get; set; }

    /// <summary>Folder for the files; it is created if it does not exist. The files name it, so they belong there.</summary>
    [Parameter(Mandatory = true)]
    [ArgumentCompleter(typeof(FolderCompleter))]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>PowerShell, and arguments before its own; the default is the one that runs, and pwsh for Kubernetes.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string[]? Shell { get; set; }

    /// <summary>Name or path of the module; the default is the one that runs, and LoKr for Kubernetes.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Module { get; set; }

    /// <summary>Image of the container, for Kubernetes: one with pwsh, the module and libtorch.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string Image { get; set; } = "lokr:latest";

    /// <summary>Claim of the volume with the folder of the job, for Kubernetes.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string VolumeClaim { get; set; } = "lokr";

    /// <summary>Name of a list of jobs, for its files and for Kubernetes; the default is the name of the deepest folder that holds all job files.</summary>
    [Parameter]
    [ValidateNotNullOrEmpty]
    public string? Name { get; set; }

    /// <summary>How many jobs of a list run at the same time; the default is as many as the cluster has room for.</summary>
    [Parameter]
    [ValidateRange(1, int.MaxValue)]
    public int? MaxConcurrent { get; set; }

    /// <summary>Threads of each job of a list, and the processors that its pod asks for. The default is what the job files say, or 1.</summary>
    [Parameter]
    [ValidateRange(1, 4096)]
    public int? ThreadsPerJob { get; set; }

    /// <summary>Replaces existing files.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => string.Join(", ", Path);

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process()
    {
        LoKrJob[] jobs = [.. Path.SelectMany(path => Paths.Existing(path)).Distinct(StringComparer.Ordinal).Select(JobScript.ReadJob)];
        string folder = Paths.New(Destination);
        foreach (string path in jobs.Select(static job => job.Path).Append(folder))
        {
            ShellText.RequireOneLine(path);
        }

        bool isList = As is JobScheduler.Kubernetes && (At is null || jobs.Length > 1);
        WriteWarnings(As is JobScheduler.Kubernetes ? [] : Ignored("without -As Kubernetes", nameof(Image), nameof(VolumeClaim)));
        WriteWarnings(isList ? [] : Ignored("without a list of jobs", nameof(Name), nameof(MaxConcurrent), nameof(ThreadsPerJob)));
        IReadOnlyList<KeyValuePair<string, string>> files = isList ? ListFiles(jobs, folder) : Schedule(jobs, folder).Create(As);
        foreach ((string name, _) in files)
        {
            FileSystem.CheckReplaceable(System.IO.Path.Combine(folder, name), Force);
        }

        if (ShouldProcess(folder, $"Write {string.Join(", ", files.Select(static file => file.Key))}"))
        {
            FileSystem.CreateFolder(folder);
            foreach ((string name, string text) in files)
            {
                string path = System.IO.Path.Combine(folder, name);
                AtomicFile.WriteText(path, text);
                WriteObject(new FileInfo(path));
            }
        }
    }

    private IReadOnlyList<string> ShellCommand => Shell ?? (As is JobScheduler.Kubernetes ? ["pwsh"] : ShellProgram.Current());

    private string ModuleName => Module ?? (As is JobScheduler.Kubernetes ? "LoKr" : ShellProgram.Manifest);

    private JobSchedule Schedule(LoKrJob[] jobs, string folder)
    {
        if (jobs.Length > 1)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"There are {jobs.Length} job files, and {As} runs one at a time.",
                "Write the files of one after the other, or let Submit-LoKrJob run the list.") { Target = nameof(Path) };
        }

        return new()
        {
            Name = jobs[0].Name,
            JobPath = jobs[0].Path,
            At = At ?? throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"{As} needs the time of the day.", "Give it with -At, for example 02:15.") { Target = nameof(At) },
            Shell = ShellCommand,
            Module = ModuleName,
            Folder = folder,
            Image = Image,
            VolumeClaim = VolumeClaim,
        };
    }

    private KeyValuePair<string, string>[] ListFiles(LoKrJob[] jobs, string folder)
    {
        string common = FolderPaths.Common([.. jobs.Select(static job => job.Folder)]);
        string name = Name ?? (System.IO.Path.GetFileName(common) is { Length: > 0 } last ? last : "jobs");
        string script = $"{name}.ps1";
        string list = $"{name}.jobs.txt";
        KubernetesManifest manifest = new()
        {
            Name = name,
            Command = [.. ShellCommand, "-NoProfile", "-NonInteractive", "-File", System.IO.Path.Combine(folder, script)],
            WorkingFolder = folder,
            Mount = JobSchedule.Mount([common, folder]),
            Image = Image,
            VolumeClaim = VolumeClaim,
            Count = jobs.Length,
            MaxConcurrent = MaxConcurrent,
            Threads = ThreadsPerJob ?? jobs.Max(static job => job.Base.Threads ?? 1),
        };
        return
        [
            new(script, JobArrayScript.Create(ModuleName, list, "[int] $env:JOB_COMPLETION_INDEX + 1", null)),
            new(list, string.Concat(jobs.Select(static job => job.Path + "\n"))),
            At is TimeOnly at ? new($"{name}.cronjob.yaml", manifest.CronJob(at)) : new($"{name}.job.yaml", manifest.Job()),
        ];
    }
}
