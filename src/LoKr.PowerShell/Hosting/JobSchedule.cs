using System.Globalization;
using System.Text;
using System.Xml.Linq;
using LoKr.Core.IO;

namespace LoKr.PowerShell.Hosting;

/// <summary>Programs that start jobs.</summary>
public enum JobScheduler
{
    /// <summary>systemd: a service and its timer.</summary>
    Systemd,

    /// <summary>Windows Task Scheduler: a task as XML.</summary>
    TaskScheduler,

    /// <summary>cron: a line of a crontab.</summary>
    Cron,

    /// <summary>Kubernetes: a CronJob as YAML.</summary>
    Kubernetes,

    /// <summary>Slurm: a batch script that submits itself for the next night.</summary>
    Slurm,
}

/// <summary>
/// The files with which a scheduler runs a job every day: a PowerShell script that does the job, and what starts it. Every text of a user is quoted
/// by the rules of the file that it is in.
/// </summary>
internal sealed record JobSchedule
{
    private const string Arguments = "-NoProfile -NonInteractive -File";

    /// <summary>Name of the job.</summary>
    public required string Name { get; init; }

    /// <summary>Full path of the job file.</summary>
    public required string JobPath { get; init; }

    /// <summary>Time of the day.</summary>
    public required TimeOnly At { get; init; }

    /// <summary>PowerShell: the program, and arguments before its own.</summary>
    public required IReadOnlyList<string> Shell { get; init; }

    /// <summary>Name or path of the module.</summary>
    public required string Module { get; init; }

    /// <summary>Full path of the folder that the files are for.</summary>
    public required string Folder { get; init; }

    /// <summary>Image of the container, for Kubernetes.</summary>
    public string Image { get; init; } = "";

    /// <summary>Claim of the volume with the folder of the job, for Kubernetes.</summary>
    public string VolumeClaim { get; init; } = "";

    private string ScriptPath => Path.Combine(Folder, $"{Name}.ps1");

    private string JobFolder => Path.GetDirectoryName(JobPath)!;

    private string LogPath => Path.Combine(Folder, $"{Name}.log");

    /// <summary>The files of a scheduler: their names and contents.</summary>
    /// <param name="scheduler">The scheduler.</param>
    public IReadOnlyList<KeyValuePair<string, string>> Create(JobScheduler scheduler) =>
    [
        new($"{Name}.ps1", Script()),
        .. scheduler switch
        {
            JobScheduler.Systemd => (KeyValuePair<string, string>[])[new($"{UnitName}.service", Service()), new($"{UnitName}.timer", Timer())],
            JobScheduler.TaskScheduler => [new($"{Name}.task.xml", Task())],
            JobScheduler.Cron => [new($"{Name}.crontab", Crontab())],
            JobScheduler.Kubernetes => [new($"{Name}.cronjob.yaml", Manifest.CronJob(At))],
            _ => [new($"{Name}.sbatch", Batch())],
        },
    ];

    private string Script() => $"""
        # Does the job, and ends with its exit code.
        Import-Module -Name {JobArrayScript.Quote(Module)}
        Invoke-LoKrJob -LiteralPath {JobArrayScript.Quote(JobPath)} -Exit

        """;

    // Names of units have letters and digits of ASCII; other bytes are escaped as systemd-escape does.
    private string UnitName => "lokr-" + string.Concat(Encoding.UTF8.GetBytes(Name).Select(static b =>
        char.IsAsciiLetterOrDigit((char)b) || b is (byte)'_' or (byte)'.' or (byte)'-' ? ((char)b).ToString() : string.Create(CultureInfo.InvariantCulture, $"\\x{b:x2}")));

    private string Service() => $"""
        # systemctl link this file and the timer, then systemctl enable --now {UnitName}.timer; with --user for one user.
        [Unit]
        Description=LoKr job {Specifier(Name)}

        [Service]
        Type=exec
        WorkingDirectory={Specifier(JobFolder)}
        ExecStart={string.Join(' ', Shell.Select(Word))} {Arguments} {Word(ScriptPath)}
        # 2: nothing is new. 4: the new adapter is not better. 75: stopped with a checkpoint; it goes on by itself.
        SuccessExitStatus=2 4 75
        RestartForceExitStatus=75
        RestartSec=30
        # A training ends with its step and a checkpoint.
        TimeoutStopSec=10min
        KillMode=mixed

        """;

    private string Timer() => $"""
        [Unit]
        Description=LoKr job {Specifier(Name)}, every day

        [Timer]
        OnCalendar=*-*-* {At:HH\:mm\:ss}
        Persistent=true

        [Install]
        WantedBy=timers.target

        """;

    // % begins a specifier in every setting.
    private static string Specifier(string text) => text.Replace("%", "%%", StringComparison.Ordinal);

    // In a command line $ begins a variable as well.
    private static string Word(string text) => $"\"{Specifier(text).Replace("\\", @"\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal).Replace("$", "$$", StringComparison.Ordinal)}\"";

    private string Crontab() => $"""
        # crontab -l; then crontab with these lines added. flock keeps two runs apart: 5 is the exit code of a job that is busy.
        {At.Minute} {At.Hour} * * * {CronCommand()}

        """;

    // cron takes % for the end of the line, and gives \% to the shell as %.
    private string CronCommand() =>
        $"flock -n -E 5 {ShellText.Word(Path.Combine(Folder, $".{Name}.lock"))} {string.Join(' ', Shell.Select(ShellText.Word))} {Arguments} {ShellText.Word(ScriptPath)} >> {ShellText.Word(LogPath)} 2>&1"
            .Replace("%", "\\%", StringComparison.Ordinal);

    private string Task()
    {
        XNamespace task = "http://schemas.microsoft.com/windows/2004/02/mit/task";
        XElement root = new(task + "Task", new XAttribute("version", "1.2"),
            new XElement(task + "RegistrationInfo", new XElement(task + "Description", $"LoKr job {Name}"), new XElement(task + "URI", $"\\LoKr\\{Name}")),
            new XElement(task + "Triggers", new XElement(task + "CalendarTrigger",
                new XElement(task + "Enabled", "true"),
                new XElement(task + "StartBoundary", string.Create(CultureInfo.InvariantCulture, $"2026-01-01T{At:HH\\:mm\\:ss}")),
                new XElement(task + "ScheduleByDay", new XElement(task + "DaysInterval", "1")))),
            new XElement(task + "Settings",
                new XElement(task + "MultipleInstancesPolicy", "IgnoreNew"),
                new XElement(task + "DisallowStartIfOnBatteries", "false"),
                new XElement(task + "StopIfGoingOnBatteries", "false"),
                new XElement(task + "StartWhenAvailable", "true"),
                new XElement(task + "Enabled", "true"),
                new XElement(task + "ExecutionTimeLimit", "PT0S")),
            new XElement(task + "Actions", new XElement(task + "Exec",
                new XElement(task + "Command", Shell[0]),
                new XElement(task + "Arguments", string.Join(' ', [.. Shell.Skip(1).Select(WindowsWord), Arguments, WindowsWord(ScriptPath)])),
                new XElement(task + "WorkingDirectory", JobFolder))));
        return $"""
            <!-- Register-ScheduledTask -TaskName {Name.Replace("--", "-", StringComparison.Ordinal)} -Xml (Get-Content this file -Raw) -->
            {root}

            """;
    }

    // File names on Windows have no quotation marks; a backslash at the end would escape ours.
    private static string WindowsWord(string text) => $"\"{(text.EndsWith('\\') ? text + "\\" : text)}\"";

    private KubernetesManifest Manifest => new()
    {
        Name = Name,
        Command = [.. Shell, .. Arguments.Split(' '), ScriptPath],
        WorkingFolder = JobFolder,
        Mount = Mount([JobFolder, Folder]),
        Image = Image,
        VolumeClaim = VolumeClaim,
    };

    /// <summary>The deepest folder that holds all others, unless it is the root, which no volume can be.</summary>
    /// <param name="folders">Full paths.</param>
    internal static string Mount(IReadOnlyList<string> folders) => FolderPaths.Common(folders) is { Length: > 1 } common ? common : folders[0];

    private string Batch() => $"""
        #!/bin/bash
        # sbatch this file: it runs the job, submits itself for the next night, and is requeued when the job stopped with a checkpoint.
        #SBATCH --job-name={ShellText.BatchWord($"lokr-{Name}")}
        #SBATCH --chdir={ShellText.BatchWord(JobFolder)}
        #SBATCH --output={ShellText.BatchWord(LogPath.Replace("%", "%%", StringComparison.Ordinal))}
        #SBATCH --open-mode=append
        #SBATCH --begin={At:HH\:mm}
        #SBATCH --signal=B:USR1@120
        #SBATCH --requeue

        # Two minutes before the time is up, and when the job is canceled: end after the step, with a checkpoint.
        {ShellText.RunAndForward(Shell.Select(ShellText.Word).Append($"{Arguments} {ShellText.Word(ScriptPath)}"))}

        case $code in
            75)
                scontrol requeue "$SLURM_JOB_ID"
                exit 0
                ;;
            2 | 4)
                code=0
                ;;
        esac
        sbatch {ShellText.Word(Path.Combine(Folder, $"{Name}.sbatch"))}
        exit "$code"

        """;
}
