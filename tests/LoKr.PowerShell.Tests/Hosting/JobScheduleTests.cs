using System.Diagnostics;
using System.Xml.Linq;
using LoKr.PowerShell.Hosting;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Hosting;

/// <summary>Files for schedulers: each is read back by the program that it is for, where that is there, with names that are hard to quote.</summary>
public sealed class JobScheduleTests : IDisposable
{
    private const string Hard = "it's a \"100%\" $HOME \\ ü folder";

    private readonly TempFolder _folder = new();

    public static TheoryData<JobScheduler> Schedulers => [.. Enum.GetValues<JobScheduler>()];

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Schedulers))]
    public void Every_schedule_has_the_script_and_names_absolute_paths(JobScheduler scheduler)
    {
        IReadOnlyList<KeyValuePair<string, string>> files = Schedule("plain").Create(scheduler);
        Assert.Equal("tickets.ps1", files[0].Key);
        Assert.Contains("Invoke-LoKrJob -LiteralPath '", files[0].Value, StringComparison.Ordinal);
        Assert.Contains("-Exit", files[0].Value, StringComparison.Ordinal);
        Assert.All(files.Skip(1).Where(static file => !file.Key.EndsWith(".timer", StringComparison.Ordinal)), file => Assert.Contains(_folder["plain", "tickets.ps1"], file.Value, StringComparison.Ordinal));
    }

    [Fact]
    public void systemd_accepts_the_units()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() && Find("systemd-analyze") is not null, "systemd-analyze is not there.");
        foreach (string name in (string[])["plain", Hard])
        {
            Write(name, JobScheduler.Systemd, "/bin/true");
            (int code, string text) = Run("systemd-analyze", "verify", "--man=no", Path.Combine(_folder.Path, name, "lokr-tickets.timer"), Path.Combine(_folder.Path, name, "lokr-tickets.service"));

            // It also complains about units of the machine.
            Assert.DoesNotContain("lokr", text, StringComparison.Ordinal);
            Assert.True(code == 0 || !text.Contains("lokr", StringComparison.Ordinal), text);
        }
    }

    [Fact]
    public void systemd_services_restart_at_75_and_take_2_and_4_for_success()
    {
        string service = Schedule(Hard).Create(JobScheduler.Systemd).Single(static file => file.Key == "lokr-tickets.service").Value;
        Assert.Contains("RestartForceExitStatus=75", service, StringComparison.Ordinal);
        Assert.Contains("SuccessExitStatus=2 4 75", service, StringComparison.Ordinal);
        Assert.Contains("\\\"100%%\\\" $$HOME \\\\ ü folder/tickets.ps1\"", service, StringComparison.Ordinal);
        Assert.Contains("WorkingDirectory=" + _folder[Hard].Replace("%", "%%", StringComparison.Ordinal), service, StringComparison.Ordinal);
        Assert.Contains("OnCalendar=*-*-* 02:15:00", Schedule("x").Create(JobScheduler.Systemd)[2].Value, StringComparison.Ordinal);
        Assert.Equal(@"lokr-n\xc3\xa4chtlich.timer", (Schedule("x") with { Name = "nächtlich" }).Create(JobScheduler.Systemd)[2].Key);
    }

    [Theory]
    [InlineData("plain")]
    [InlineData(Hard)]
    public void A_crontab_line_runs_in_the_shell_as_cron_hands_it_on(string name)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() && Find("flock") is not null, "flock is not there.");
        Write(name, JobScheduler.Cron, Recorder());
        string line = File.ReadLines(Path.Combine(_folder.Path, name, "tickets.crontab")).Single(static line => !line.StartsWith('#') && line.Length > 0);
        Assert.StartsWith("15 2 * * * flock -n -E 5 ", line, StringComparison.Ordinal);
        Assert.DoesNotContain(line.Zip(line[1..]), static pair => pair.Second == '%' && pair.First != '\\');
        string command = line["15 2 * * * ".Length..].Replace("\\%", "%", StringComparison.Ordinal);
        (int code, string text) = Run("sh", "-c", command);
        Assert.True(code == 0, text);
        Assert.Equal($"-NoProfile -NonInteractive -File {_folder[name, "tickets.ps1"]}", File.ReadAllText(_folder["arguments"]).TrimEnd());
        Assert.True(File.Exists(_folder[name, "tickets.log"]));
    }

    [Fact]
    public void kubectl_accepts_the_CronJob()
    {
        Assert.SkipUnless(Find("kubectl") is not null, "kubectl is not there.");
        foreach (string name in (string[])["plain", Hard])
        {
            Write(name, JobScheduler.Kubernetes, "pwsh");
            (int code, string text) = Run("kubectl", "create", "--dry-run=client", "--validate=false", "-o", "json", "-f", Path.Combine(_folder.Path, name, "tickets.cronjob.yaml"));

            // Without a cluster the client cannot look up the kind.
            Assert.SkipWhen(code != 0 && (text.Contains("connection refused", StringComparison.Ordinal) || text.Contains("no matches for kind", StringComparison.Ordinal) || text.Contains("couldn't get", StringComparison.Ordinal)), text);
            Assert.True(code == 0, text);
            Assert.Contains("\"concurrencyPolicy\": \"Forbid\"", text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_CronJob_replaces_pods_that_end_with_75_and_fails_what_cannot_end_well()
    {
        string text = Schedule("plain").Create(JobScheduler.Kubernetes)[1].Value;
        Assert.Contains("concurrencyPolicy: Forbid", text, StringComparison.Ordinal);
        Assert.Contains("podFailurePolicy:", text, StringComparison.Ordinal);
        Assert.Contains("values: [75]", text, StringComparison.Ordinal);
        Assert.Contains("values: [3, 6, 8]", text, StringComparison.Ordinal);
        Assert.Contains("restartPolicy: Never", text, StringComparison.Ordinal);
        Assert.Contains("name: \"lokr-tickets\"", text, StringComparison.Ordinal);
        string other = (Schedule("plain") with { Name = "Nächtlich_1" }).Create(JobScheduler.Kubernetes)[1].Value;
        Assert.Matches("name: \"lokr-n-chtlich-1-[0-9a-f]{8}\"", other);
    }

    [Fact]
    public void An_Indexed_Job_fails_by_index_what_cannot_end_well()
    {
        KubernetesManifest manifest = new()
        {
            Name = "customers", Command = ["pwsh", "-File", "/w/customers.ps1"], WorkingFolder = "/w", Mount = "/w", Image = "lokr:1", VolumeClaim = "tickets", Count = 40, MaxConcurrent = 8, Threads = 2,
        };
        string text = manifest.Job();
        foreach (string line in (string[])["kind: Job", "  completionMode: Indexed", "  completions: 40", "  parallelism: 8", "  backoffLimitPerIndex: 3", "    - action: FailIndex", "        values: [3, 6, 8]", "        values: [75]",
            "        - name: LOKR_THREADS", "          value: \"2\"", "            cpu: \"2\"", "        volumeMounts:"])
        {
            Assert.Contains($"\n{line}\n", text, StringComparison.Ordinal);
        }

        Assert.DoesNotContain("backoffLimit:", text, StringComparison.Ordinal);
        string nightly = manifest.CronJob(new TimeOnly(2, 15));
        Assert.Contains("\n      completionMode: Indexed\n", nightly, StringComparison.Ordinal);
        Assert.Contains("\n  schedule: \"15 2 * * *\"\n", nightly, StringComparison.Ordinal);
        Assert.Contains("\n  parallelism: 40\n", (manifest with { MaxConcurrent = null }).Job(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(2, 0)]
    [InlineData(4, 0)]
    [InlineData(3, 3)]
    [InlineData(75, 75)]
    public void The_shell_of_a_CronJob_turns_what_is_not_a_failure_into_0(int code, int expected)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() || OperatingSystem.IsMacOS(), "The shell is of Unix.");
        string yaml = Schedule("plain").Create(JobScheduler.Kubernetes)[1].Value;
        string line = yaml.Split('\n').Single(static line => line.Contains("command:", StringComparison.Ordinal));
        string script = System.Text.Json.JsonSerializer.Deserialize<string[]>(line[(line.IndexOf('[', StringComparison.Ordinal))..])![2];
        Assert.Equal(expected, Run("/bin/sh", "-c", script, "sh", "sh", "-c", $"exit {code}").Code);
    }

    [Fact]
    public void A_task_has_the_elements_in_the_order_of_the_schema()
    {
        string text = Schedule("plain").Create(JobScheduler.TaskScheduler)[1].Value;
        XNamespace ns = "http://schemas.microsoft.com/windows/2004/02/mit/task";
        XElement task = XDocument.Parse(text).Root!;
        Assert.Equal(ns + "Task", task.Name);
        Assert.Equal(["RegistrationInfo", "Triggers", "Settings", "Actions"], task.Elements().Select(static element => element.Name.LocalName));

        // triggerBaseType is a sequence, and calendarTriggerType continues it.
        Assert.Equal(["Enabled", "StartBoundary", "ScheduleByDay"], task.Descendants(ns + "CalendarTrigger").Single().Elements().Select(static element => element.Name.LocalName));
        Assert.Equal(["Command", "Arguments", "WorkingDirectory"], task.Descendants(ns + "Exec").Single().Elements().Select(static element => element.Name.LocalName));
        Assert.Equal("IgnoreNew", task.Descendants(ns + "MultipleInstancesPolicy").Single().Value);
        Assert.EndsWith("T02:15:00", task.Descendants(ns + "StartBoundary").Single().Value, StringComparison.Ordinal);
        Assert.Equal($"-NoProfile -NonInteractive -File \"{_folder["plain", "tickets.ps1"]}\"", task.Descendants(ns + "Arguments").Single().Value);
    }

    [Theory]
    [InlineData(0, 0, "sbatch")]
    [InlineData(4, 0, "sbatch")]
    [InlineData(3, 3, "sbatch")]
    [InlineData(75, 0, "scontrol requeue 42")]
    public void A_batch_script_requeues_what_stopped_and_submits_the_next_night(int code, int expected, string calls)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() && Find("bash") is not null, "bash is not there.");
        Write(Hard, JobScheduler.Slurm, Recorder(code));
        string bin = Directory.CreateDirectory(_folder["bin"]).FullName;
        foreach (string program in (string[])["sbatch", "scontrol"])
        {
            WriteProgram(Path.Combine(bin, program), $"echo \"{program} $*\" >> '{_folder["calls"]}'");
        }

        string file = Path.Combine(_folder.Path, Hard, "tickets.sbatch");
        ProcessStartInfo start = new("bash", [file]) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["PATH"] = $"{bin}:{Environment.GetEnvironmentVariable("PATH")}";
        start.Environment["SLURM_JOB_ID"] = "42";
        Assert.Equal(expected, Run(start).Code);
        Assert.StartsWith(calls, File.ReadAllText(_folder["calls"]), StringComparison.Ordinal);
        Assert.Equal($"-NoProfile -NonInteractive -File {_folder[Hard, "tickets.ps1"]}", File.ReadAllText(_folder["arguments"]).TrimEnd());
        Assert.Contains("#SBATCH --signal=B:USR1@120", File.ReadAllText(file), StringComparison.Ordinal);
        Assert.Contains("#SBATCH --requeue", File.ReadAllText(file), StringComparison.Ordinal);
        Assert.Contains("100%%", File.ReadAllText(file), StringComparison.Ordinal);
    }

    private JobSchedule Schedule(string folder, string shell = "/usr/bin/pwsh") => new()
    {
        Name = "tickets",
        JobPath = _folder[folder, "tickets.job.psd1"],
        At = new TimeOnly(2, 15),
        Shell = [shell],
        Module = "LoKr",
        Folder = _folder[folder],
        Image = "lokr:1",
        VolumeClaim = "tickets",
    };

    private void Write(string folder, JobScheduler scheduler, string shell)
    {
        foreach ((string name, string text) in Schedule(folder, shell).Create(scheduler))
        {
            _folder.Write(Path.Combine(folder, name), text);
        }
    }

    // A program that writes down its arguments.
    private string Recorder(int code = 0)
    {
        WriteProgram(_folder["rec order"], $"echo \"$*\" > '{_folder["arguments"]}'; exit {code}");
        return _folder["rec order"];
    }

    private static void WriteProgram(string path, string script)
    {
        File.WriteAllText(path, $"#!/bin/sh\n{script}\n");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
    }

    private static string? Find(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);

    private static (int Code, string Text) Run(string program, params string[] arguments) =>
        Run(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true });

    private static (int Code, string Text) Run(ProcessStartInfo start)
    {
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + error.Result);
    }
}
