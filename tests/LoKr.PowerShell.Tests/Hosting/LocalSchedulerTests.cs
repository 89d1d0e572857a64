using LoKr.Core.Runs;
using LoKr.PowerShell.Hosting;
using LoKr.Testing;
using Xunit;

namespace LoKr.PowerShell.Tests.Hosting;

/// <summary>Jobs in child processes, with a shell script in place of each job.</summary>
public sealed class LocalSchedulerTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly SubmissionFolder _submission;

    public LocalSchedulerTests() => _submission = new(_folder["submission"]);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Every_job_runs_once_and_one_that_stopped_again()
    {
        LoKrSubmissionJob[] jobs = Run("""
            echo "job $1 on $OMP_NUM_THREADS $MKL_NUM_THREADS"
            case $1 in
                1) exit 0 ;;
                2) exit 3 ;;
                3) [ -e again ] && exit 4; touch again; exit 75 ;;
                4) exit 75 ;;
                5) kill -9 $$ ;;
            esac
            """, 5, new() { ThreadsPerJob = 3, RestartLimit = 2, MaxConcurrent = 2, Scheduler = default, Command = [] });
        Assert.Equal([0, 3, 4, 75, 137], jobs.Select(static job => job.ExitCode!.Value));
        Assert.Equal([0, 0, 1, 2, 0], jobs.Select(static job => job.Restarts));
        Assert.Equal(
            [SubmissionJobState.Completed, SubmissionJobState.Failed, SubmissionJobState.Completed, SubmissionJobState.Stopped, SubmissionJobState.Stopped], jobs.Select(static job => job.State));
        Assert.Equal("Signal 9 ended the process.", jobs[4].Message);
        Assert.Equal(["job 4 on 3 3", "job 4 on 3 3", "job 4 on 3 3"], File.ReadAllLines(jobs[3].LogPath));
        Assert.All(jobs, static job => Assert.NotNull(job.Ended));
        Assert.False(_submission.IsLocked);
    }

    [Fact]
    public void As_many_run_at_a_time_as_the_submission_says()
    {
        Run("""
            mkdir -p now seen
            touch "now/$1"
            touch "seen/$(ls now | wc -l)"
            sleep 0.2
            touch "seen/$(ls now | wc -l)"
            rm "now/$1"
            """, 7, new() { MaxConcurrent = 3, Scheduler = default, Command = [] });
        Assert.Equal("3", Directory.EnumerateFiles(_folder["submission", "seen"]).Select(Path.GetFileName).Max(StringComparer.Ordinal));
    }

    [Fact]
    public void A_job_is_told_before_its_time_is_up_and_killed_when_it_is()
    {
        LoKrSubmissionJob[] jobs = Run("""
            if [ "$1" = 1 ]; then trap 'exit 75' TERM; else trap '' TERM; fi
            while :; do sleep 0.05; done
            """, 2, new() { TimeLimit = TimeSpan.FromSeconds(3), RestartLimit = 0, MaxConcurrent = 2, Scheduler = default, Command = [] });
        Assert.Equal([75, 137], jobs.Select(static job => job.ExitCode!.Value));
    }

    [Fact]
    public void A_stopped_job_ends_and_one_that_waits_does_not_begin()
    {
        Write("""
            trap 'exit 75' TERM
            touch "begun$1"
            while :; do sleep 0.05; done
            """, 2, new() { MaxConcurrent = 1, Scheduler = default, Command = [] });
        Thread run = new(() => LocalScheduler.Run(_submission.Path));
        run.Start();
        SpinWait.SpinUntil(() => File.Exists(_folder["submission", "begun1"]), TimeSpan.FromMinutes(1));
        LoKrSubmissionJob[] before = Read();
        Assert.Equal([SubmissionJobState.Running, SubmissionJobState.Pending], before.Select(static job => job.State));
        _submission.RequestStop(1);
        _submission.RequestStop(2);
        run.Join();
        LoKrSubmissionJob[] jobs = Read();
        Assert.Equal([75, null], jobs.Select(static job => job.ExitCode));
        Assert.All(jobs, static job => Assert.Equal((SubmissionJobState.Stopped, true), (job.State, job.CanContinue)));
        Assert.False(File.Exists(_folder["submission", "begun2"]));
    }

    [Fact]
    public void Jobs_share_the_GPUs()
    {
        LoKrSubmissionJob[] jobs = Run("echo \"$CUDA_VISIBLE_DEVICES\"; sleep 0.1", 4, new() { Gpu = 2, Devices = ["4", "5", "6", "7", "8"], MaxConcurrent = 9, Scheduler = default, Command = [] });
        Assert.Equal(["4,5", "6,7"], jobs.Select(static job => File.ReadAllText(job.LogPath).Trim()).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal));
    }

    private LoKrSubmissionJob[] Run(string script, int count, SubmissionOptions options)
    {
        Write(script, count, options);
        LocalScheduler.Run(_submission.Path);
        return Read();
    }

    private void Write(string script, int count, SubmissionOptions options)
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "The shell is of Unix.");
        _folder.Write("job.sh", script);
        SubmissionRequest[] requests = [.. Enumerable.Range(1, count).Select(number => new SubmissionRequest(
            new LoKrJob { Path = _folder[$"{number}.job.psd1"], Name = $"{number}", Base = new() { Path = "model" }, Data = new() { Path = ["data"] } }, new() { JobFile = $"{number}" }))];
        _submission.Write(_submission.Plan(requests, [], force: false), options with { Command = ["sh", _folder["job.sh"]] });
    }

    private LoKrSubmissionJob[] Read() => [.. _submission.Read(static _ => throw new InvalidOperationException("There is no scheduler."))];
}
