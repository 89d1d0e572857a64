using LoKr.Core.Configuration;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Tests.Distributed;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Runs;

/// <summary>Jobs: what each night does, and the exit code that schedulers act on.</summary>
public sealed class JobRunnerTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly List<string> _log = [];

    public JobRunnerTests()
    {
        TinyModel.WriteBert(_folder["model"]);
        Directory.CreateDirectory(_folder["data"]);
        TinyData.WriteTickets(_folder["data", "1.jsonl"], 96, 1);
        TinyData.WriteTickets(_folder["eval.jsonl"], 60, 2);
    }

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Nights_publish_what_is_better_and_nothing_else()
    {
        LoKrJob job = Job() with { Gate = new() { Confidence = 0.9 }, Retention = new() { Versions = 2, Runs = 2 }, Report = new() { Path = "reports" } };
        LoKrJobResult first = Run(job);
        Assert.Contains("<html", File.ReadAllText(first.Report!), StringComparison.Ordinal);
        Assert.Equal((LoKrJobState.Published, RunExitCodes.Success, 1, (int?)null), (first.State, first.ExitCode, first.Version, first.Champion));
        Assert.NotNull(first.Gate);

        LoKrJobResult second = Run(job);
        Assert.Equal((LoKrJobState.NothingToDo, RunExitCodes.NothingToDo, (int?)null, 1), (second.State, second.ExitCode, second.Version, second.Champion));

        // The words of two labels change places.
        File.WriteAllLines(_folder["data", "1.jsonl"], File.ReadAllLines(_folder["data", "1.jsonl"])
            .Select(static line => line.Contains("\"network\"", StringComparison.Ordinal) ? line.Replace("\"network\"", "\"billing\"", StringComparison.Ordinal) : line.Replace("\"billing\"", "\"network\"", StringComparison.Ordinal)));
        LoKrJobResult third = Run(job);
        Assert.True(third.State is LoKrJobState.NotBetter, third.Message);
        Assert.Equal((RunExitCodes.NotBetter, 1), (third.ExitCode, third.Champion));
        Assert.Equal(1, Registry.Get("tickets").Version);
        Assert.Single(Registry.GetVersions("tickets"));
        LoKrJobResult again = Run(job);
        Assert.Equal((RunExitCodes.NotBetter, third.Run), (again.ExitCode, again.Run));
        Assert.Contains("network", new RunFolder(third.Run!).ReadGate()!.Labels.Select(static label => label.Label));
        AdapterCard card = Registry.Get("tickets", 1).Card;
        Assert.Equal("tickets", card.Job);
        Assert.Equal(["access", "billing", "network"], card.Labels!);
        Assert.Equal("Published", Assert.Single(_log, static line => line.StartsWith("Published", StringComparison.Ordinal)).Split(',')[0]);
        Assert.True(File.Exists(_folder["runs", "tickets", "result.json"]));
    }

    [Fact]
    public void A_time_limit_ends_with_75_and_the_next_start_ends_with_the_same_bits()
    {
        LoKrJobResult whole = Run(Job() with { Registry = null, Runs = new() { Path = "whole" } });
        Assert.Equal((LoKrJobState.Trained, RunExitCodes.Success), (whole.State, whole.ExitCode));
        LoKrJob job = Job();
        LoKrJobResult stopped = Run(job with { Training = job.Training with { TimeLimit = TimeSpan.FromTicks(1) } });
        Assert.Equal((LoKrJobState.Stopped, RunExitCodes.RunAgain), (stopped.State, stopped.ExitCode));
        Assert.Null(Registry.Find("tickets"));
        LoKrJobResult finished = Run(job);
        Assert.Equal((LoKrJobState.Published, stopped.Run), (finished.State, finished.Run));
        Assert.Equal(2, new RunFolder(finished.Run!).Read().Attempt);
        Assert.Equal(File.ReadAllBytes(Weights(new RunFolder(whole.Run!).AdapterFolder)), File.ReadAllBytes(Weights(Registry.Get("tickets").Path)));
    }

    [Fact]
    public void A_job_that_was_killed_after_its_registration_publishes_that_version()
    {
        Assert.Equal(1, Run(Job()).Version);
        File.Delete(_folder["registry", "tickets", "aliases.json"]);
        LoKrJobResult again = Run(Job());
        Assert.Equal((LoKrJobState.Published, 1), (again.State, again.Version));
        Assert.Single(Registry.GetVersions("tickets"));
        Assert.Equal(1, Registry.Get("tickets").Version);
    }

    [Fact]
    public void A_job_that_was_killed_after_its_publication_tells_of_it_in_the_next_night()
    {
        LoKrJob job = Job() with { Gate = new() { Confidence = 0.9 }, Report = new() { Path = "reports" } };
        LoKrJobResult first = Run(job);
        File.Delete(first.Report!);
        File.Delete(_folder["runs", "tickets", "result.json"]);
        File.Delete(Path.Combine(first.Run!, "registered.jsonl"));
        _folder.Write("runs/tickets/20200101T000000Z-0123456789ab/.run.json.0123456789abcdef0123456789abcdef.old", "{}");
        LoKrJobResult second = Run(job with { Retention = new() { Runs = 1 } });
        Assert.Equal(first with { Started = second.Started, Elapsed = second.Elapsed, Champion = null, RemovedRuns = second.RemovedRuns }, second);
        Assert.True(File.Exists(first.Report));
        Assert.True(File.Exists(Path.Combine(first.Run!, "registered.jsonl")));
        Assert.Equal([_folder["runs", "tickets", "20200101T000000Z-0123456789ab"]], second.RemovedRuns);
        Assert.False(Directory.Exists(second.RemovedRuns[0]));
        Assert.Equal(LoKrJobState.NothingToDo, Run(job).State);
        Assert.Equal(LoKrJobState.NothingToDo, Run(job).State);

        // With other data the night goes on; what was left is done before.
        File.Delete(first.Report!);
        File.Delete(_folder["runs", "tickets", "result.json"]);
        File.AppendAllLines(_folder["data", "1.jsonl"], File.ReadAllLines(_folder["eval.jsonl"]).Take(9));
        _log.Clear();
        LoKrJobResult third = Run(job with { Gate = new() { MinimumImprovement = 1 } });
        Assert.Equal((LoKrJobState.NotBetter, 1), (third.State, third.Champion));
        Assert.True(File.Exists(first.Report));
        Assert.Contains(_log, static line => line.StartsWith("Version 1 of tickets is the champion", StringComparison.Ordinal));
    }

    [Fact]
    public void A_version_that_somebody_took_back_is_not_news()
    {
        LoKrJob job = Job();
        Assert.Equal(1, Run(job).Version);
        LoKrJob other = job with { Training = job.Training with { Seed = 4 } };
        Assert.Equal(2, Run(other).Version);
        Registry.Restore("tickets");
        Assert.Equal((LoKrJobState.NothingToDo, 1), (Run(job).State, Registry.Get("tickets").Version));
    }

    [Fact]
    public void A_new_label_ends_the_job_or_grows_the_head()
    {
        LoKrJob job = Job() with { Registry = new() { Path = "registry", StartFrom = JobStart.Champion } };
        Assert.Equal(1, Run(job).Version);
        File.AppendAllText(_folder["data", "1.jsonl"], "{\"text\": \"card price\", \"label\": \"refund\"}\n");
        LoKrJobResult refused = Run(job);
        Assert.Equal((RunExitCodes.Invalid, ErrorIds.LabelUnknown), (refused.ExitCode, refused.ErrorId));
        Assert.Contains("'refund'", refused.Message, StringComparison.Ordinal);
        Assert.Contains("1.jsonl:97", refused.Message, StringComparison.Ordinal);

        LoKrJobResult grown = Run(job with { Data = job.Data with { NewLabels = NewLabels.Grow }, Gate = new() { MinimumImprovement = 1 } });
        Assert.Equal(["refund"], grown.NewLabels);
        Assert.Equal((LoKrJobState.NotBetter, 1), (grown.State, grown.Champion));
        LoKrJobResult published = Run(job with { Data = job.Data with { NewLabels = NewLabels.Grow } });
        Assert.Equal((LoKrJobState.Published, grown.Run), (published.State, published.Run));
        Assert.Equal(["access", "billing", "network", "refund"], AdapterLabels.Read(Registry.Get("tickets").Path));
    }

    [Fact]
    public void A_grown_head_keeps_the_rows_of_the_labels_that_it_had()
    {
        Assert.Equal(1, Run(Job()).Version);
        string champion = Registry.Get("tickets").Path;
        using LoKrModel model = ModelLoader.Load(_folder["model"], new() { Labels = ["access", "billing", "network", "refund"], Seed = 9 });
        LoKrAdapter adapter = HeadGrowth.Import(model, champion, "grown", trainable: true, HeadGrowth.Never);
        using PeftAdapterFolder files = PeftAdapterFolder.Read(champion);
        using Tensor old = files.Tensors.Read("classifier.weight");
        Tensor now = adapter.GetTensors()["classifier.weight"];
        Assert.Equal([4, old.shape[1]], now.shape);
        Assert.True(now.slice(0, 0, 3, 1).equal(old).all().ToBoolean());
        Assert.Equal(0, now[3].abs().sum().ToDouble());
        Assert.Equal((float)HeadGrowth.Never, adapter.GetTensors()["classifier.bias"][3].ToSingle());
    }

    [Fact]
    public void A_champion_of_another_configuration_is_not_continued()
    {
        LoKrJob job = Job() with { Registry = new() { Path = "registry", StartFrom = JobStart.Champion } };
        Assert.Equal(1, Run(job).Version);
        LoKrJobResult result = Run(job with { Configuration = job.Configuration with { R = 4 } });
        Assert.Equal((RunExitCodes.Invalid, ErrorIds.JobInvalid), (result.ExitCode, result.ErrorId));
        Assert.Contains("r 4", result.Message, StringComparison.Ordinal);
        Assert.Equal(RunExitCodes.NothingToDo, Run(job).ExitCode);
    }

    [Fact]
    public void A_job_that_another_process_does_is_busy()
    {
        Directory.CreateDirectory(_folder["runs", "tickets"]);
        using (RunLock.Take(_folder["runs", "tickets"], _folder["runs", "tickets", ".job.lock"]))
        {
            LoKrJobResult busy = Run(Job());
            Assert.Equal((RunExitCodes.Busy, ErrorIds.RunBusy), (busy.ExitCode, busy.ErrorId));
        }

        Assert.Equal(RunExitCodes.Success, Run(Job()).ExitCode);
    }

    [Fact]
    public void What_is_missing_or_cannot_be_written_has_its_code()
    {
        LoKrJob job = Job();
        LoKrJobResult result = Run(job with { Data = new() { Path = ["none/*.jsonl"] } });
        Assert.Equal((RunExitCodes.Invalid, ErrorIds.JobInvalid), (result.ExitCode, result.ErrorId));
        Assert.Contains("'data.path'", result.Message, StringComparison.Ordinal);
        Assert.Equal((RunExitCodes.Missing, ErrorIds.PathNotFound), Code(Run(job with { Base = new() { Path = "no-model" } })));
        _folder.Write("file", "");
        Assert.Equal((RunExitCodes.NoSpace, ErrorIds.FileNotWritable), Code(Run(job with { Runs = new() { Path = "file" } })));
        Assert.Equal((RunExitCodes.NoSpace, ErrorIds.DiskSpaceLow), Code(Run(job with { Runs = job.Runs with { MinimumFreeSpace = long.MaxValue } })));
        Assert.Equal((RunExitCodes.Invalid, ErrorIds.DataLineInvalid), Code(Run(job with { Data = new() { Path = [_folder.Write("bad.jsonl", "{")["bad.jsonl"]] } })));
    }

    [Fact]
    public void Data_with_more_than_is_allowed_end_the_job()
    {
        LoKrJob job = Job();
        File.AppendAllLines(_folder["data", "1.jsonl"], File.ReadAllLines(_folder["eval.jsonl"]).Take(30));
        LoKrJobResult shared = Run(job with { Data = job.Data with { Limits = new Dictionary<DataFindingKind, double> { [DataFindingKind.Shared] = 0.1 } } });
        Assert.Equal((RunExitCodes.Invalid, ErrorIds.DataShared), Code(shared));
        Assert.Contains("0.1 is allowed", shared.Message, StringComparison.Ordinal);
        LoKrJobResult cut = Run(job with { Data = job.Data with { Limits = new Dictionary<DataFindingKind, double> { [DataFindingKind.Cut] = 0 } }, Training = job.Training with { MaxLength = 5 } });
        Assert.Equal((RunExitCodes.Invalid, ErrorIds.DataCut), Code(cut));
        Assert.Equal(RunExitCodes.Success, Run(job with { Data = job.Data with { Limits = new Dictionary<DataFindingKind, double> { [DataFindingKind.Shared] = 1, [DataFindingKind.Cut] = 0 } } }).ExitCode);
        Assert.Contains(_log, static line => line.StartsWith("Data: ", StringComparison.Ordinal));
    }

    [Fact]
    public void A_training_that_diverges_ends_with_8_and_publishes_nothing()
    {
        LoKrJob job = Job();
        job = job with { Training = job.Training with { LearningRate = 1e30, MaxGradientNorm = 0, KeepBest = false } };
        LoKrJobResult first = Run(job);
        Assert.Equal(RunExitCodes.Diverged, first.ExitCode);
        LoKrJobResult second = Run(job);
        Assert.Equal((RunExitCodes.Diverged, first.Run), (second.ExitCode, second.Run));
        Assert.Null(Registry.Find("tickets"));
    }

    [Fact]
    public void A_plan_writes_nothing()
    {
        JobPlan plan = Runner(Job()).Plan(TestContext.Current.CancellationToken);
        Assert.Equal((96, false, false), (plan.RowCount, plan.IsNothingNew, plan.IsContinued));
        Assert.Equal(30, plan.Training!.TotalSteps);
        Assert.Contains("register", plan.ToString(), StringComparison.OrdinalIgnoreCase);
        Assert.False(Directory.Exists(_folder["runs"]));
        Assert.False(Directory.Exists(_folder["registry"]));
    }

    [Fact]
    public void Files_in_folders_of_the_model_count_and_those_beside_other_weights_do_not()
    {
        string model = _folder["model"];
        string plain = JobInputs.HashOfModel(model);
        _folder.Write("model/onnx/config.json", "{}").Write("model/onnx/model.onnx", "weights");
        Assert.Equal(plain, JobInputs.HashOfModel(model));
        _folder.Write("model/1_Pooling/config.json", """{"pooling_mode": "mean"}""");
        string pooled = JobInputs.HashOfModel(model);
        Assert.NotEqual(plain, pooled);
        _folder.Write("model/1_Pooling/config.json", """{"pooling_mode": "cls"}""");
        Assert.NotEqual(pooled, JobInputs.HashOfModel(model));
    }

    [Fact]
    public void A_command_is_told_the_result_and_its_failure_is_an_error_of_its_own()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux() || OperatingSystem.IsMacOS(), "The command is of Unix.");
        LoKrJobResult result = Run(Job());
        LoKrJob job = Job() with { Notify = new() { Command = ["sh", "-c", "printf '%s %s %s ' \"$LOKR_JOB_NAME\" \"$LOKR_JOB_STATE\" \"$LOKR_JOB_EXIT_CODE\" > told; cat >> told"] } };
        JobNotifier.RunCommand(job, result);
        string told = File.ReadAllText(_folder["told"]);
        Assert.StartsWith("tickets Published 0 {", told, StringComparison.Ordinal);
        Assert.Contains("\"version\":1", told, StringComparison.Ordinal);
        ErrorAssert.Throws(ErrorIds.NotificationFailed, () => JobNotifier.RunCommand(job with { Notify = new() { Command = ["sh", "-c", "exit 3"] } }, result), "exit code 3");
        ErrorAssert.Throws(ErrorIds.NotificationFailed, () => JobNotifier.RunCommand(job with { Notify = new() { Command = ["no-such-program"] } }, result), "does not start");
        Assert.False(JobNotifier.IsDue(new() { On = [LoKrJobState.Failed] }, result.State));
        Assert.True(JobNotifier.IsDue(new(), result.State));
    }

    [Fact]
    public void Several_workers_do_a_job_with_the_bits_of_one()
    {
        LoKrJob job = Job();
        job = job with { Training = job.Training with { GradientAccumulation = 4 }, Gate = new() { Confidence = 0.9 } };
        LoKrJobResult alone = Run(job with { Name = "alone", Registry = job.Registry! with { Path = "other", Name = "tickets" } });
        List<string>[] logs = [[], [], []];
        LoKrJobResult[] together = RunTogether(3, job, logs);
        Assert.Equal((LoKrJobState.Published, RunExitCodes.Success, 1), (together[0].State, together[0].ExitCode, together[0].Version));
        Assert.All(together, result => Assert.Equal(together[0], result with { Elapsed = together[0].Elapsed }));
        Assert.Equal(File.ReadAllBytes(Weights(Path.Combine(alone.Run!, "adapter"))), File.ReadAllBytes(Weights(Path.Combine(together[0].Run!, "adapter"))));
        Assert.Equal((alone.Gate, alone.Evaluation!.Loss), (together[0].Gate, together[0].Evaluation!.Loss));
        Assert.Equal(3, new RunFolder(together[0].Run!).Read().Workers);
        Assert.Single(Registry.GetVersions("tickets"));
        Assert.NotEmpty(logs[0]);
        Assert.Empty(logs[1].Concat(logs[2]));

        // Nothing is new, which the first one tells the others.
        Assert.All(RunTogether(2, job, logs), static result => Assert.Equal(RunExitCodes.NothingToDo, result.ExitCode));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void An_error_of_one_worker_ends_the_job_in_all(int failing)
    {
        LoKrJob job = Job();
        LoKrJob missing = job with { Base = job.Base with { Path = "nothing" } };
        (LoKrJobResult? Result, Exception? Error)[] ended = ThreadWorkers.Run(2, group => Runner(group.Rank == failing ? missing : job, _log, group).Run(TestContext.Current.CancellationToken));
        Assert.All(ended, static end => Assert.Equal((null, LoKrJobState.Failed, RunExitCodes.Missing), (end.Error, end.Result!.State, end.Result.ExitCode)));
        Assert.Equal(ended[0].Result!.ErrorId, ended[1].Result!.ErrorId);
        Assert.StartsWith($"Worker {failing} on ", ended[1 - failing].Result!.Message, StringComparison.Ordinal);
    }

    private static (int, string?) Code(LoKrJobResult result) => (result.ExitCode, result.ErrorId);

    private static string Weights(string folder) => Path.Combine(folder, PeftAdapterFolder.WeightsFile);

    private AdapterRegistry Registry => new(_folder["registry"]);

    private LoKrJob Job() => new()
    {
        Path = _folder["tickets.job.json"],
        Name = "tickets",
        Base = new() { Path = "model", Device = "cpu" },
        Data = new() { Path = ["data/*.jsonl"], Validation = ["eval.jsonl"] },
        Configuration = new() { R = 2, Alpha = 4, TargetModules = ModuleSelector.FromNames(["query", "value"]), TaskType = TaskType.SequenceClassification },
        Training = new TrainingOptions { MaxSteps = 30, BatchSize = 8, LearningRate = 2e-2, Seed = 3, KeepBest = true, EvaluateEvery = 10 },
        Runs = new() { CheckpointEvery = new(5) },
        Registry = new() { Path = "registry" },
    };

    private JobRunner Runner(LoKrJob job) => Runner(job, _log);

    private static JobRunner Runner(LoKrJob job, List<string> log, WorkerGroup? workers = null) => new(job, new()
    {
        LoadModel = static (own, labels, token) => JobModel.Load(own, labels, cancellationToken: token),
        OnLog = log.Add,
        Workers = workers,
    });

    private static LoKrJobResult[] RunTogether(int workers, LoKrJob job, List<string>[] logs) =>
    [
        .. ThreadWorkers.Run(workers, group => Runner(job, logs[group.Rank], group).Run(TestContext.Current.CancellationToken))
            .Select(static end => end.Error is null ? end.Result! : throw new InvalidOperationException("A worker failed.", end.Error)),
    ];

    private LoKrJobResult Run(LoKrJob job)
    {
        JobRunner runner = Runner(job);
        LoKrJobResult result = runner.Run(TestContext.Current.CancellationToken);
        Assert.True(runner.Failure is null or LoKrException, $"{runner.Failure}");
        return result;
    }
}
