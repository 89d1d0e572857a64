using LoKr.Core.Errors;
using LoKr.Core.Runs;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Runs;

/// <summary>Lists of jobs: how far each is, and what is run when the list is submitted again.</summary>
public sealed class SubmissionFolderTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly SubmissionFolder _submission;

    public SubmissionFolderTests() => _submission = new(_folder["submission"]);

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(0, SubmissionJobState.Completed, SubmissionReason.Unchanged)]
    [InlineData(2, SubmissionJobState.Completed, SubmissionReason.Unchanged)]
    [InlineData(4, SubmissionJobState.Completed, SubmissionReason.Unchanged)]
    [InlineData(3, SubmissionJobState.Failed, SubmissionReason.Unchanged)]
    [InlineData(8, SubmissionJobState.Failed, SubmissionReason.Unchanged)]
    [InlineData(1, SubmissionJobState.Failed, SubmissionReason.Failed)]
    [InlineData(5, SubmissionJobState.Failed, SubmissionReason.Failed)]
    [InlineData(6, SubmissionJobState.Failed, SubmissionReason.Failed)]
    [InlineData(7, SubmissionJobState.Failed, SubmissionReason.Failed)]
    [InlineData(75, SubmissionJobState.Stopped, SubmissionReason.Stopped)]
    [InlineData(137, SubmissionJobState.Stopped, SubmissionReason.Stopped)]
    public void An_exit_code_says_how_far_a_job_is_and_whether_it_is_run_again(int code, SubmissionJobState state, SubmissionReason reason)
    {
        Submit("a");
        _submission.WriteStarted(1, 1, 0);
        _submission.WriteExit(1, 1, 0, code);
        LoKrSubmissionJob job = Assert.Single(Read());
        Assert.Equal((state, code), (job.State, job.ExitCode));
        Assert.Equal(reason is not SubmissionReason.Unchanged, job.CanContinue);
        SubmissionPlan plan = Plan(Request("a"));
        Assert.Equal(reason is SubmissionReason.Unchanged ? [] : [1], plan.Submitted);
        Assert.Equal(reason, Assert.Single(plan.Planned).Reason);
    }

    [Fact]
    public void What_changed_is_run_again_and_named()
    {
        Submit("a", "b", "c", "d");
        for (int index = 1; index <= 4; index++)
        {
            _submission.WriteStarted(index, 1, 0);
            _submission.WriteExit(index, 1, 0, index == 4 ? RunExitCodes.Invalid : RunExitCodes.Success);
        }

        SubmissionRequest b = Request("b");
        SubmissionRequest d = Request("d");
        SubmissionPlan plan = Plan(Request("a"), b with { Inputs = b.Inputs with { Data = "other" } }, Request("c"), d with { Inputs = d.Inputs with { JobFile = "other", BaseModel = "other" } }, Request("e"));
        Assert.Equal([2, 4, 5], plan.Submitted);
        Assert.Equal([SubmissionChange.Data], plan.Planned[1].Changes);
        Assert.Equal([SubmissionChange.JobFile, SubmissionChange.BaseModel], plan.Planned[3].Changes);
        Assert.Equal("3 of 5 jobs (1 Changed (Data): b; 1 Changed (JobFile, BaseModel): d; 1 New: e)", $"{plan}");
        Write(plan);
        LoKrSubmissionJob[] jobs = Read();
        Assert.Equal([SubmissionReason.Unchanged, SubmissionReason.Changed, SubmissionReason.Unchanged, SubmissionReason.Changed, SubmissionReason.New], jobs.Select(static job => job.Reason));

        // The new attempt does not believe what the former one left.
        Assert.Equal([SubmissionJobState.Completed, SubmissionJobState.Stopped, SubmissionJobState.Completed, SubmissionJobState.Stopped, SubmissionJobState.Stopped], jobs.Select(static job => job.State));
        Assert.Equal("It was not started.", jobs[4].Message);
        Assert.Equal(SubmissionReason.Missing, Plan(Request("e")).Planned[0].Reason);
        Assert.Equal([1, 2, 3, 4, 5], _submission.Plan([.. "abcde".Select(static name => $"{name}").Select(Request)], Read(), force: true).Submitted);
    }

    [Fact]
    public void Jobs_keep_their_numbers_when_the_list_is_another_one()
    {
        Submit("a", "b");
        Write(Plan(Request("c"), Request("b")));
        Assert.Equal(["a", "b", "c"], Read().Select(static job => job.Job));
        Assert.Equal(["a", "b", "c"], File.ReadLines(_submission.ListFile).Select(JobFile.DefaultName));
    }

    [Fact]
    public void A_scheduler_is_asked_only_for_what_the_files_do_not_say()
    {
        Submit(SubmissionScheduler.Slurm, "done", "waits", "runs", "late", "again", "gone");
        _submission.WriteId("42");
        _submission.WriteStarted(1, 1, 0);
        _submission.WriteExit(1, 1, 0, 0);
        _submission.WriteStarted(3, 1, 0);
        _submission.WriteStarted(4, 1, 0);
        _submission.WriteStarted(5, 1, 2);
        _submission.WriteExit(5, 1, 2, 75);
        _submission.WriteStarted(6, 1, 0);
        Dictionary<(string, int), SubmissionTask> tasks = new()
        {
            // It is about to leave the queue.
            [("42", 1)] = new() { IsActive = true, IsRunning = true },
            [("42", 2)] = new() { IsActive = true, IsRunning = false, Text = "PENDING (Resources)" },
            [("42", 3)] = new() { IsActive = true, IsRunning = true, Node = "n1" },
            [("42", 4)] = new() { IsActive = false, IsRunning = false, Text = "TIMEOUT", ExitCode = 143 },
            [("42", 5)] = new() { IsActive = true, IsRunning = false },
        };
        LoKrSubmissionJob[] jobs = [.. _submission.Read(ids =>
        {
            Assert.Equal(["42"], ids);
            return tasks;
        })];
        Assert.Equal(
            [SubmissionJobState.Completed, SubmissionJobState.Pending, SubmissionJobState.Running, SubmissionJobState.Stopped, SubmissionJobState.Pending, SubmissionJobState.Stopped], jobs.Select(static job => job.State));
        Assert.Equal("PENDING (Resources)", jobs[1].Message);
        Assert.Equal(("n1", "42_3"), (jobs[2].Node, jobs[2].SchedulerId));
        Assert.Equal((143, "The scheduler says TIMEOUT; signal 15 ended the process."), (jobs[3].ExitCode, jobs[3].Message));
        Assert.Equal((2, null), (jobs[4].Restarts, jobs[4].ExitCode));
        Assert.Equal("Its process is gone.", jobs[5].Message);
        LoKrSubmission summary = _submission.Summarize(jobs);
        Assert.Equal((6, 2, 1, 1, 0, 2, 2), (summary.JobCount, summary.PendingCount, summary.RunningCount, summary.CompletedCount, summary.FailedCount, summary.StoppedCount, summary.ContinuableCount));
        Assert.Equal([SubmissionReason.Forced, SubmissionReason.InProgress], _submission.Plan([Request("done"), Request("again")], jobs, force: true).Planned.Select(static entry => entry.Reason));

        // What was noted while the scheduler was asked counts.
        Assert.Equal(4, _submission.Read(_ =>
        {
            _submission.WriteExit(4, 1, 0, 4);
            return tasks;
        })[3].ExitCode);

        // When all have ended, nobody is asked.
        foreach (int index in (int[])[2, 3, 4, 5, 6])
        {
            _submission.WriteExit(index, 1, 3, 0);
        }

        Assert.All(_submission.Read(static _ => throw new InvalidOperationException("The scheduler was asked.")), static job => Assert.Equal(SubmissionJobState.Completed, job.State));
    }

    [Fact]
    public void A_process_that_starts_jobs_here_holds_those_that_have_not_ended()
    {
        Submit("a", "b", "c");
        _submission.WriteStarted(1, 1, 0);
        _submission.WriteStarted(2, 1, 0);
        _submission.WriteExit(2, 1, 0, 75);
        using (_submission.Lock())
        {
            Assert.Equal([SubmissionJobState.Running, SubmissionJobState.Pending, SubmissionJobState.Pending], Read().Select(static job => job.State));
            ErrorAssert.Throws(ErrorIds.RunBusy, () => _submission.Lock().Dispose());
        }

        Assert.Equal([SubmissionJobState.Stopped, SubmissionJobState.Stopped, SubmissionJobState.Stopped], Read().Select(static job => job.State));
        Assert.Equal(["Its process is gone.", "It stopped with a checkpoint.", "It was not started."], Read().Select(static job => job.Message));
        Assert.False(File.Exists(_folder["submission", ".submission.lock"]));
    }

    [Fact]
    public void Jobs_with_one_folder_of_runs_are_refused()
    {
        LoKrException error = ErrorAssert.Throws(ErrorIds.InvalidArgument, () => Plan(Request("a"), Request("a") with { Job = Job("a") with { Path = _folder["other.job.psd1"] } }));
        Assert.Contains("other.job.psd1", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Damaged_files_and_missing_folders_are_errors()
    {
        ErrorAssert.Throws(ErrorIds.SubmissionNotFound, () => Read());
        Submit("a");
        File.WriteAllText(_folder["submission", "jobs", "0001", "exit"], "1 0 yesterday 0");
        ErrorAssert.Throws(ErrorIds.SubmissionInvalid, () => Read());
        File.WriteAllText(_folder["submission", "submission.json"], "{");
        ErrorAssert.Throws(ErrorIds.SubmissionInvalid, () => Read());
    }

    [Fact]
    public void Inputs_are_those_of_job_file_data_and_base_model()
    {
        _folder.Write("a.job.psd1", "@{ }").Write("1.jsonl", "{}\n");
        TinyModel.WriteBert(_folder["model"]);
        LoKrJob job = Job("a");
        Dictionary<string, string> models = [];
        SubmissionInputs first = SubmissionInputs.Of(job, models);
        Assert.Equal(first, SubmissionInputs.Of(job, models));
        _folder.Write("1.jsonl", "{ }\n");
        Assert.Equal([SubmissionChange.Data], SubmissionInputs.Of(job, models).ChangesFrom(first));
        _folder.Write("1.jsonl", "{}\n").Write("a.job.psd1", "@{  }");
        Assert.Equal([SubmissionChange.JobFile], SubmissionInputs.Of(job, models).ChangesFrom(first));
        Directory.Delete(_folder["model"], recursive: true);
        Assert.Equal([SubmissionChange.JobFile, SubmissionChange.BaseModel], SubmissionInputs.Of(job, new Dictionary<string, string>()).ChangesFrom(first));
    }

    private LoKrJob Job(string name) => new() { Path = _folder[$"{name}.job.psd1"], Name = name, Base = new() { Path = "model" }, Data = new() { Path = ["*.jsonl"] } };

    private SubmissionRequest Request(string name) => new(Job(name), new() { JobFile = name, Data = "data", BaseModel = "model" });

    private SubmissionPlan Plan(params IReadOnlyList<SubmissionRequest> requests) => _submission.Plan(requests, _submission.Exists ? Read() : [], force: false);

    private void Submit(params string[] names) => Submit(SubmissionScheduler.Local, names);

    private void Submit(SubmissionScheduler scheduler, params string[] names) => Write(_submission.Plan([.. names.Select(Request)], [], force: false), scheduler);

    private void Write(SubmissionPlan plan, SubmissionScheduler scheduler = SubmissionScheduler.Local) => _submission.Write(plan, new() { Scheduler = scheduler, Command = ["none"] });

    private LoKrSubmissionJob[] Read() => [.. _submission.Read(static _ => throw new InvalidOperationException("There is no scheduler."))];
}
