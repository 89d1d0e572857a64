using System.Diagnostics;
using LoKr.Core.Runs;
using LoKr.PowerShell.Hosting;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Hosting;

/// <summary>Calls of Slurm and its answers; tests/Pester/Slurm.Tests.ps1 has a real one.</summary>
public sealed class SlurmSchedulerTests : IDisposable
{
    private const string Hard = "it's a \"100%\" $HOME \\ ü folder";

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_job_array_has_the_options_of_the_submission()
    {
        string text = Script(new() { Scheduler = SubmissionScheduler.Slurm, MaxConcurrent = 8, ThreadsPerJob = 2, TimeLimit = TimeSpan.FromSeconds(90), Partition = "night", Gpu = 1, SchedulerOptions = ["--account=ml"], Command = ["pwsh"] }, [1, 2, 3, 7, 9, 10]);
        string[] options = [.. text.Split('\n').Where(static line => line.StartsWith("#SBATCH ", StringComparison.Ordinal)).Select(static line => line["#SBATCH ".Length..])];
        Assert.Contains("--array=1-3,7,9-10%8", options);
        Assert.Contains("--cpus-per-task=2", options);
        Assert.Contains("--time=2", options);
        Assert.Contains("--signal=B:USR1@15", options);
        Assert.Contains("--partition=\"night\"", options);
        Assert.Contains("--gres=gpu:1", options);
        Assert.Contains("--account=ml", options);
        Assert.Contains(options, static option => option.Contains("100%%", StringComparison.Ordinal) && option.EndsWith("/jobs/%4a/log.txt\"", StringComparison.Ordinal));
        string plain = Script(new() { Scheduler = SubmissionScheduler.Slurm, Command = ["pwsh"] }, [5]);
        Assert.Contains("#SBATCH --array=5\n", plain, StringComparison.Ordinal);
        Assert.Contains("--signal=B:USR1@120", plain, StringComparison.Ordinal);
        Assert.DoesNotContain("--time", plain, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, 0, 0, "")]
    [InlineData(2, 0, 0, "")]
    [InlineData(4, 0, 0, "")]
    [InlineData(3, 0, 3, "")]
    [InlineData(75, 0, 0, "scontrol requeue 42")]
    [InlineData(75, 5, 75, "")]
    public void A_task_notes_how_it_ended_and_is_requeued_at_75_only(int code, int restarts, int expected, string calls)
    {
        using Process task = Start($"exit {code}", restarts);
        task.WaitForExit();
        Assert.Equal(expected, task.ExitCode);
        Assert.Equal(calls, File.Exists(_folder["calls"]) ? File.ReadAllText(_folder["calls"]).Trim() : "");
        Assert.Matches($"^3 {restarts} [0-9]+ {code}\n$", File.ReadAllText(_folder[Hard, "jobs", "0007", "exit"]));
        Assert.Matches($"^3 {restarts} [0-9]+ n1\n$", File.ReadAllText(_folder[Hard, "jobs", "0007", "started"]));
        Assert.Equal("7 2", File.ReadAllText(_folder["arguments"]).Trim());
    }

    [Fact]
    public void A_task_that_was_stopped_is_not_requeued_nor_started()
    {
        string stop = _folder[Hard, "jobs", "0007", "stop"];
        using (Process task = Start($"touch '{stop.Replace("'", "'\\''", StringComparison.Ordinal)}'; exit 75", 0))
        {
            task.WaitForExit();
            Assert.Equal(75, task.ExitCode);
        }

        using (Process task = Start($"touch '{_folder["begun"]}'", 1))
        {
            task.WaitForExit();
            Assert.Equal(75, task.ExitCode);
        }

        Assert.False(File.Exists(_folder["calls"]) || File.Exists(_folder["begun"]));
        Assert.Matches("^3 1 [0-9]+ 75\n$", File.ReadAllText(_folder[Hard, "jobs", "0007", "exit"]));
    }

    [Fact]
    public void A_signal_to_the_task_ends_the_job_in_order()
    {
        using Process task = Start($"trap 'sleep 0.3; exit 75' TERM; touch '{_folder["begun"]}'; while :; do sleep 0.05; done", 0);
        Assert.True(SpinWait.SpinUntil(() => File.Exists(_folder["begun"]), TimeSpan.FromMinutes(1)));
        using (Process kill = Process.Start("sh", ["-c", $"kill -USR1 {task.Id}"]))
        {
            kill.WaitForExit();
        }

        task.WaitForExit();
        Assert.Matches("^3 0 [0-9]+ 75\n$", File.ReadAllText(_folder[Hard, "jobs", "0007", "exit"]));
        Assert.Equal("scontrol requeue 42", File.ReadAllText(_folder["calls"]).Trim());
    }

    [Fact]
    public void Answers_of_squeue_and_sacct_are_read()
    {
        Dictionary<(string, int), SubmissionTask> tasks = [];
        SlurmScheduler.Read("42_1|COMPLETED|0:0|n1\n42_2|CANCELLED by 1000|0:15|n1\n42_3|FAILED|3:0|n2\n42_4|RUNNING|0:0|n2\n43|RUNNING|0:0|n2\n42_[7-9]|PENDING|0:0|None assigned\n42_5|NODE_FAIL|0:0|n3\n", tasks);
        Assert.Equal([("42", 1), ("42", 2), ("42", 3), ("42", 4), ("42", 5)], tasks.Keys);
        Assert.Equal(new SubmissionTask { IsActive = false, IsRunning = false, Text = "CANCELLED", Node = "n1", ExitCode = 143 }, tasks[("42", 2)]);
        Assert.Equal(3, tasks[("42", 3)].ExitCode);
        SlurmScheduler.Read("42_4|PENDING|Resources|\n42_6|COMPLETING|None|n1\n42_3|REQUEUED|BeginTime|\n", tasks);
        Assert.Equal(new SubmissionTask { IsActive = true, IsRunning = false, Text = "PENDING (Resources)" }, tasks[("42", 4)]);
        Assert.True(tasks[("42", 6)].IsRunning);
        Assert.True(tasks[("42", 3)].IsActive);
    }

    private string Script(SubmissionOptions options, int[] indexes) => SlurmScheduler.CreateScript(
        _folder[Hard], "lokr-customers", new() { Number = 3, Created = DateTime.UtcNow, Scheduler = SubmissionScheduler.Slurm, Indexes = indexes }, options);

    // A task as Slurm starts it, with a program that writes down its arguments in place of PowerShell.
    private Process Start(string job, int restarts)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() && File.Exists("/bin/bash"), "bash is not there.");
        _folder.Write(Path.Combine("bin", "scontrol"), $"#!/bin/sh\necho \"scontrol $*\" >> '{_folder["calls"]}'\n");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(_folder["bin", "scontrol"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }

        _folder.Write("job.sh", $"echo \"$1 $OMP_NUM_THREADS\" > '{_folder["arguments"]}'\n{job}\n");
        Directory.CreateDirectory(_folder[Hard, "jobs", "0007"]);
        _folder.Write("array.sbatch", Script(new() { Scheduler = SubmissionScheduler.Slurm, ThreadsPerJob = 2, RestartLimit = 5, Command = ["sh", _folder["job.sh"]] }, [7]));
        ProcessStartInfo start = new("bash", [_folder["array.sbatch"]]);
        start.Environment["PATH"] = $"{_folder["bin"]}:{Environment.GetEnvironmentVariable("PATH")}";
        start.Environment["SLURM_JOB_ID"] = "42";
        start.Environment["SLURM_ARRAY_TASK_ID"] = "7";
        start.Environment["SLURM_RESTART_COUNT"] = $"{restarts}";
        start.Environment["SLURMD_NODENAME"] = "n1";
        return Process.Start(start)!;
    }
}
