using System.Management.Automation;
using LoKr.Core.IO;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Writes the files with which a scheduler runs a job every day.</summary>
[Cmdlet(VerbsData.Export, "LoKrSchedule", SupportsShouldProcess = true)]
[OutputType(typeof(FileInfo))]
public sealed class ExportLoKrScheduleCommand : LoKrCommand
{
    /// <summary>The job file.</summary>
    [Parameter(Mandatory = true, Position = 0)]
    [ArgumentCompleter(typeof(JobFileCompleter))]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    public string Path { get; set; } = "";

    /// <summary>The scheduler: Systemd, TaskScheduler, Cron, Kubernetes or Slurm.</summary>
    [Parameter(Mandatory = true, Position = 1)]
    public JobScheduler As { get; set; }

    /// <summary>Time of the day (02:15), in the time zone of the scheduler.</summary>
    [Parameter(Mandatory = true)]
    public TimeOnly At { get; set; }

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

    /// <summary>Replaces existing files.</summary>
    [Parameter]
    public SwitchParameter Force { get; set; }

    /// <inheritdoc/>
    protected override string? Subject => Path;

    /// <inheritdoc/>
    protected override void Process()
    {
        LoKrJob job = JobFile.Read(JobScript.Read(Paths.ExistingOne(Path)));
        string folder = Paths.New(Destination);
        ShellText.RequireOneLine(job.Path);
        ShellText.RequireOneLine(folder);
        bool elsewhere = As is JobScheduler.Kubernetes;
        JobSchedule schedule = new()
        {
            Name = job.Name,
            JobPath = job.Path,
            At = At,
            Shell = Shell ?? (elsewhere ? ["pwsh"] : ShellProgram.Current()),
            Module = Module ?? (elsewhere ? "LoKr" : ShellProgram.Manifest),
            Folder = folder,
            Image = Image,
            VolumeClaim = VolumeClaim,
        };
        WriteWarnings(elsewhere ? [] : new[] { nameof(Image), nameof(VolumeClaim) }.Where(MyInvocation.BoundParameters.ContainsKey).Select(static name => $"-{name} has no effect without -As Kubernetes."));
        IReadOnlyList<KeyValuePair<string, string>> files = schedule.Create(As);
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
}
