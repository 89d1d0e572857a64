using System.Diagnostics;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layers;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runs;
using LoKr.Core.Tests.Training;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Runs;

/// <summary>Runs on disk: whatever ends one, the run that goes on ends with the bits of a run that nothing ended.</summary>
public sealed class RunTests : IDisposable
{
    private static readonly TrainingOptions s_options = new()
    {
        Epochs = 3, BatchSize = 4, GradientAccumulation = 2, LearningRate = 2e-2, WeightDecay = 0.01, WarmupRatio = 0.1, Seed = 7, EvaluateEvery = 3,
        EvaluateBefore = true, KeepBest = true,
    };

    private readonly TempFolder _folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(TinyKind.Classifier, false)]
    [InlineData(TinyKind.Language, false)]
    [InlineData(TinyKind.Language, true)]
    [InlineData(TinyKind.Tagger, false)]
    [InlineData(TinyKind.Reranker, false)]
    [InlineData(TinyKind.Encoder, false)]
    [InlineData(TinyKind.ScoredEncoder, false)]
    public void A_run_that_is_canceled_after_any_step_goes_on_with_the_same_bits(TinyKind kind, bool packing)
    {
        // Packed rows need so few lines that a line is a batch.
        TrainingOptions options = packing ? s_options with { Packing = true, BatchSize = 1 } : s_options;
        Outcome expected = Train(null, kind, options);
        int count = expected.Result.History.Count;
        Assert.True(count >= 15);
        for (int at = 1; at < 15; at++)
        {
            string path = _folder[$"canceled-{at}"];
            using CancellationTokenSource cancel = new();
            Outcome first = Train(Options(path), kind, options, onStep: step => Cancel(step.Step == at, cancel), token: cancel.Token);
            Assert.Equal(("Canceled", at), (first.Result.StopReason, first.Result.History.Count));
            Assert.Equal((RunState.Interrupted, "Canceled", RunExitCodes.RunAgain), Ending(path));
            Outcome second = Train(Options(path), kind, options);
            Assert.Equal((RunState.Completed, "Completed", RunExitCodes.Success), Ending(path));
            AssertSame(expected, second);
        }
    }

    [Fact]
    public void A_run_with_a_learning_rate_of_the_head_goes_on_with_the_same_bits()
    {
        Outcome expected = Train(null, fresh: true);
        Assert.Equal(10 * s_options.LearningRate, expected.Result.HeadLearningRate!.Value, 12);
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        Train(Options(path), fresh: true, onStep: step => Cancel(step.Step == 4, cancel), token: cancel.Token);
        Outcome second = Train(Options(path), fresh: true);
        Assert.Empty(second.Warnings);
        AssertSame(expected, second);
        Assert.Equal(expected.Result.HeadLearningRate, new RunFolder(path).Read().HeadLearningRate);
        Assert.Equal(expected.Result.HeadLearningRate, Train(Options(path), fresh: true).Result.HeadLearningRate);
    }

    [Fact]
    public void A_run_that_began_with_one_learning_rate_keeps_it()
    {
        // A run without a new head leaves the files that versions without a learning rate of the head left.
        Outcome expected = Train(null);
        Assert.Null(expected.Result.HeadLearningRate);
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        Train(Options(path), onStep: step => Cancel(step.Step == 4, cancel), token: cancel.Token);
        Assert.All(Directory.EnumerateFiles(path, "*.json*", SearchOption.AllDirectories), static file => Assert.DoesNotContain("headLearningRate", File.ReadAllText(file), StringComparison.Ordinal));
        Outcome second = Train(Options(path), fresh: true);
        Assert.Contains("one learning rate", Assert.Single(second.Warnings), StringComparison.Ordinal);
        AssertSame(expected, second);
    }

    [Fact]
    public void A_copy_of_the_folder_at_any_moment_goes_on_with_the_same_bits()
    {
        Outcome expected = Train(null);
        string path = _folder["run"];
        List<string> copies = [];
        Train(Options(path) with { CheckpointEvery = new(2) }, onStep: step => copies.Add(Copy(path, step.Step)));
        Assert.Equal(15, copies.Count);
        foreach (string copy in copies)
        {
            Assert.Equal(RunState.Interrupted, new RunFolder(copy).Read().State);
            AssertSame(expected, Train(Options(copy)));
        }
    }

    [Fact]
    public void A_stop_within_an_evaluation_leaves_the_evaluation_to_the_run_that_goes_on()
    {
        Outcome expected = Train(null);
        string path = _folder["run"];
        int scores = 0;
        Outcome first = Train(Options(path), onScore: recorder => StopAt(ref scores, recorder));
        Assert.Equal("Stopped", first.Result.StopReason);
        Assert.Equal(3, first.Result.History.Count);
        Assert.Null(first.Result.History[^1].EvaluationLoss);
        Assert.Equal(2, File.ReadLines(new RunFolder(path).LogFile).Count());
        LoKrRun run = new RunFolder(path).Read();
        Assert.Equal((3, 3, first.Result.History[^1].Loss), (run.Step, run.CheckpointStep, run.Loss));
        AssertSame(expected, Train(Options(path)));

        // The first five batches are those of the evaluation before the first step.
        static void StopAt(ref int scores, RunRecorder? recorder)
        {
            if (++scores == 7)
            {
                recorder!.RequestStop("Stopped");
            }
        }
    }

    // As where a signal ends a command: the reason is given, then the work is canceled.
    [Fact]
    public void A_cancellation_has_the_reason_of_the_stop_before_it()
    {
        Outcome expected = Train(null);
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        int scores = 0;
        Outcome first = Train(Options(path), onScore: recorder => End(ref scores, recorder, cancel), token: cancel.Token);
        Assert.Equal("Signal", first.Result.StopReason);
        Assert.Equal((RunState.Interrupted, "Signal", RunExitCodes.RunAgain), Ending(path));
        AssertSame(expected, Train(Options(path)));

        static void End(ref int scores, RunRecorder? recorder, CancellationTokenSource cancel)
        {
            if (++scores == 7)
            {
                recorder!.RequestStop(StopReasons.Signal);
                cancel.Cancel();
            }
        }
    }

    [Fact]
    public void A_stop_file_of_another_process_ends_the_run_after_its_step()
    {
        string path = _folder["run"];
        Outcome outcome = Train(Options(path), options: s_options with { Epochs = 10_000 }, onStep: step => Ask(step.Step, path));
        Assert.Equal("Stopped", outcome.Result.StopReason);
        Assert.True(outcome.Result.History.Count < 20_000);
        Assert.Equal((RunState.Interrupted, "Stopped", RunExitCodes.RunAgain), Ending(path));

        static void Ask(int step, string path)
        {
            if (step == 2)
            {
                new RunFolder(path).RequestStop();
            }
        }
    }

    [Fact]
    public void A_time_limit_ends_the_run_with_a_checkpoint()
    {
        string path = _folder["run"];
        Outcome outcome = Train(Options(path), options: s_options with { Epochs = 10_000, TimeLimit = TimeSpan.FromMilliseconds(200) });
        Assert.Equal("TimeLimit", outcome.Result.StopReason);
        LoKrRun run = new RunFolder(path).Read();
        Assert.Equal((RunState.Interrupted, outcome.Result.History.Count), (run.State, run.CheckpointStep));
    }

    [Fact]
    public void A_finished_run_is_returned_and_not_trained_again()
    {
        string path = _folder["run"];
        Outcome first = Train(Options(path));
        Outcome second = Train(Options(path), onStep: _ => Assert.Fail("A step was trained."));
        AssertSame(first, second);
        Assert.Equal(1, new RunFolder(path).Read().Attempt);
    }

    [Fact]
    public void Evaluations_without_improvement_end_the_run_and_the_best_values_are_kept()
    {
        string path = _folder["run"];
        TrainingOptions options = s_options with { Epochs = 100, EvaluateEvery = 1, Patience = 2, MinimumImprovement = 1, Metric = EvaluationMetric.Loss };
        Outcome outcome = Train(Options(path), options: options);
        Assert.Equal("EarlyStopped", outcome.Result.StopReason);

        // The first evaluation counts as an improvement, two more do not.
        Assert.Equal(3, outcome.Result.History.Count);
        double best = outcome.Result.History.Min(step => step.EvaluationLoss!.Value);
        Assert.Equal(best, outcome.Result.After!.Loss);
        Assert.Equal(best, outcome.Result.History[outcome.Result.BestStep!.Value - 1].EvaluationLoss);
        Assert.True(Directory.Exists(Path.Combine(new RunFolder(path).CheckpointFolder, $"{outcome.Result.BestStep:D6}")));
    }

    [Fact]
    public void Old_checkpoints_are_removed_but_not_that_of_the_best_evaluation()
    {
        string path = _folder["run"];
        Outcome outcome = Train(Options(path) with { CheckpointEvery = new(1), CheckpointLimit = 2 });
        string[] steps = [.. Directory.EnumerateDirectories(new RunFolder(path).CheckpointFolder).Select(Path.GetFileName).Order().Cast<string>()];
        string[] last = ["000013", "000014"];
        Assert.Equal(last.Append($"{outcome.Result.BestStep:D6}").Distinct().Order(), steps.Except(["000015"]).Order());
    }

    [Fact]
    public void A_damaged_checkpoint_is_named_and_the_one_before_is_used()
    {
        Outcome expected = Train(null);
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        Train(Options(path) with { CheckpointEvery = new(2) }, onStep: step => Cancel(step.Step == 7, cancel), token: cancel.Token);
        string damaged = Path.Combine(new RunFolder(path).CheckpointFolder, "000007", "training.safetensors");
        using (FileStream stream = File.OpenWrite(damaged))
        {
            stream.Position = stream.Length - 3;
            stream.WriteByte(0x55);
        }

        Outcome second = Train(Options(path));
        Assert.Contains("Checkpoint 7", Assert.Single(second.Warnings), StringComparison.Ordinal);
        AssertSame(expected, second);
    }

    [Fact]
    public void Other_data_another_base_or_another_configuration_is_refused_by_name_and_force_begins_anew()
    {
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        Train(Options(path), onStep: step => Cancel(step.Step == 2, cancel), token: cancel.Token);
        ErrorAssert.Throws(ErrorIds.RunMismatch, () => Train(Options(path), rows: 36), "another data");
        ErrorAssert.Throws(ErrorIds.RunMismatch, () => Train(Options(path), modelSeed: 6), "another base model");
        ErrorAssert.Throws(ErrorIds.RunMismatch, () => Train(Options(path), options: s_options with { LearningRate = 1e-3 }), "another configuration");
        Assert.Equal(2, new RunFolder(path).Read().Step);
        Outcome anew = Train(Options(path) with { Force = true }, rows: 36);
        Assert.Equal(("Completed", 1), (anew.Result.StopReason, new RunFolder(path).Read().Attempt));
    }

    [Fact]
    public void A_model_that_does_something_else_with_the_same_tensors_is_refused_by_name()
    {
        string bert = LoKr.Testing.TinyModel.WriteBert(_folder["bert"]);
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        Assert.Equal("Canceled", TrainEncoder(path, bert, SentencePooling.Mean, step => Cancel(step.Step == 2, cancel), cancel.Token).StopReason);
        ErrorAssert.Throws(ErrorIds.RunMismatch, () => TrainEncoder(path, bert, SentencePooling.Cls), "another configuration of the model");
        string config = Path.Combine(bert, "config.json");
        string text = File.ReadAllText(config);
        File.WriteAllText(config, text.Replace("\"hidden_dropout_prob\":0", "\"hidden_dropout_prob\":0.1", StringComparison.Ordinal));
        Assert.NotEqual(text, File.ReadAllText(config));
        ErrorAssert.Throws(ErrorIds.RunMismatch, () => TrainEncoder(path, bert, SentencePooling.Mean), "another configuration of the model");
        File.WriteAllText(config, text);

        // A run that an earlier version began does not say it, and goes on.
        RunFolder folder = new(path);
        LoKrRun run = folder.Read();
        folder.Write(run with { Inputs = run.Inputs with { ModelSettings = null } });
        Assert.Equal("Completed", TrainEncoder(path, bert, SentencePooling.Cls).StopReason);
    }

    [Fact]
    public void A_run_goes_on_with_the_day_on_which_it_began_and_one_that_begins_anew_needs_that_of_today()
    {
        DateTime day = new(2026, 3, 5);
        Outcome expected = TrainDated(Options(_folder["whole"]), day).Outcome;
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        TrainDated(Options(path), day, step => Cancel(step.Step == 2, cancel), token: cancel.Token);
        Assert.Equal((day, day), (new RunFolder(path).Read().Day, FormerRun.DayOf(Options(path), workers: null)));
        Assert.NotEqual(day, FormerRun.DayOf(Options(path) with { Resume = RunResume.Never }, workers: null));
        Assert.NotEqual(day, FormerRun.DayOf(options: null, workers: null));
        ErrorAssert.Throws(ErrorIds.RunMismatch, () => TrainDated(Options(path), day.AddDays(1)), "another data");

        (Outcome second, bool needsToday) = TrainDated(Options(path) with { Force = true }, FormerRun.DayOf(Options(path), workers: null));
        AssertSame(expected, second);
        Assert.False(needsToday);
        Assert.Contains("2026-03-05", File.ReadAllText(new RunFolder(path).ReportFile), StringComparison.Ordinal);
        Assert.True(TrainDated(Options(path) with { Force = true }, day, answer: "z").NeedsToday);
        Assert.False(TrainDated(Options(_folder["new"]) with { Force = true }, day).NeedsToday);
    }

    [Fact]
    public void Resume_says_what_happens_to_a_run_in_the_folder()
    {
        string path = _folder["run"];
        ErrorAssert.Throws(ErrorIds.RunNotFound, () => Train(Options(path) with { Resume = RunResume.Required }), path);
        Outcome first = Train(Options(path) with { Resume = RunResume.Never });
        ErrorAssert.Throws(ErrorIds.RunExists, () => Train(Options(path) with { Resume = RunResume.Never }), path);
        AssertSame(first, Train(Options(path) with { Resume = RunResume.Never, Force = true }));
        _folder.Write("papers/thesis.txt", "unique");
        ErrorAssert.Throws(ErrorIds.RunExists, () => Train(Options(_folder["papers"]) with { Force = true }), "no run");
        Assert.True(File.Exists(_folder["papers", "thesis.txt"]));
    }

    [Fact]
    public void A_second_process_is_told_who_has_the_run()
    {
        string path = _folder["process-run"];
        string[] holder = OperatingSystem.IsLinux() ? [$"Process {Environment.ProcessId} ", Environment.MachineName] : ["Another process "];
        LoKrException? busy = null;
        Train(Options(path), onStep: _ =>
        {
            busy ??= ErrorAssert.Throws(ErrorIds.RunBusy, () => new RunFolder(path).Lock().Dispose(), [.. holder, $" works on the run '{path}'."]);
            Assert.Equal(busy.Message, ErrorAssert.Throws(ErrorIds.RunBusy, () => new RunFolder(path).CheckRemove()).Message);
        });
        Assert.NotNull(busy);
        new RunFolder(path).Lock().Dispose();
    }

    [Fact]
    public void A_lock_of_another_machine_is_taken_over_when_its_count_stands_still()
    {
        string path = _folder["run.lock"];
        File.WriteAllText(path, "process 1 (pwsh) on elsewhere, since 2026-01-01 00:00:00 UTC\n41\n");
        RunLock.Take(_folder.Path, path, TimeSpan.FromMilliseconds(50)).Dispose();
        Assert.False(File.Exists(path));

        // A holder that counts is alive, even if its lock cannot be seen from here: this one, as over a network, writes without a lock.
        Assert.SkipUnless(OperatingSystem.IsLinux(), "Writes to a locked file by another program.");
        File.WriteAllText(path, "process 1 (pwsh) on elsewhere, since 2026-01-01 00:00:00 UTC\n1\n");
        using Process beats = Process.Start("sh", ["-c", "i=10; while [ $i -lt 99 ]; do echo $i | dd of=\"$0\" bs=1 seek=61 conv=notrunc 2>/dev/null; i=$((i+1)); sleep 0.05; done", path]);
        ErrorAssert.Throws(ErrorIds.RunBusy, () => RunLock.Take(_folder.Path, path, TimeSpan.FromSeconds(2)).Dispose(), "elsewhere");
        beats.WaitForExit();
    }

    [Fact]
    public void A_run_that_diverges_is_failed_and_does_not_go_on()
    {
        string path = _folder["run"];
        ErrorAssert.Throws(ErrorIds.LossNotFinite, () => Train(Options(path), options: s_options with { LearningRate = 1e30, MaxGradientNorm = 0 }));
        Assert.Equal((RunState.Failed, "Diverged", RunExitCodes.Diverged), Ending(path));
        ErrorAssert.Throws(ErrorIds.RunExists, () => Train(Options(path), options: s_options with { LearningRate = 1e30, MaxGradientNorm = 0 }), "diverged");
    }

    [Fact]
    public void Free_space_is_checked_before_anything_is_written()
    {
        string path = _folder["run"];
        ErrorAssert.Throws(ErrorIds.DiskSpaceLow, () => Train(Options(path) with { MinimumFreeSpace = long.MaxValue }), "MiB");
        Assert.False(new RunFolder(path).Exists);
    }

    [Fact]
    public void The_adapter_of_a_finished_run_is_a_PEFT_folder_with_the_same_bits()
    {
        string path = _folder["run"];
        Outcome outcome = Train(Options(path));
        using LoKrModel model = CreateModel(TinyKind.Classifier, fresh: false, 5);
        AdapterImporter.Import(model, new RunFolder(path).AdapterFolder);
        Assert.Equal(outcome.Bytes, BytesOf(model));
    }

    [Fact]
    public void A_run_that_is_removed_leaves_nothing()
    {
        string path = _folder["run"];
        Train(Options(path));
        new RunFolder(path).Remove();
        Assert.False(Directory.Exists(path));
        ErrorAssert.Throws(ErrorIds.RunNotFound, () => new RunFolder(path).Remove(), path);
    }

    [Fact]
    public void A_run_whose_process_was_killed_as_it_began_begins()
    {
        string whole = _folder["whole"];
        Outcome expected = Train(Options(whole));
        string path = _folder["run"];
        RunFolder folder = new(path);

        // Within the first write, and between the first and the second.
        _folder.Write("run/" + Path.GetFileName(TemporaryName.Beside(folder.StateFile, "tmp")), "{");
        Assert.Throws<InvalidOperationException>(() => Train(Options(path), onStep: static _ => throw new InvalidOperationException("The program has a bug.")));
        File.Delete(folder.ConfigFile);
        AssertSame(expected, Train(Options(path)));
        Assert.Equal(FilesOf(whole), FilesOf(path));
        Assert.Equal(File.ReadAllText(new RunFolder(whole).ConfigFile), File.ReadAllText(folder.ConfigFile));
    }

    [Fact]
    public void Unfinished_files_of_killed_processes_are_gone_when_the_run_goes_on()
    {
        string whole = _folder["whole"];
        Train(Options(whole));
        string path = _folder["run"];
        using CancellationTokenSource cancel = new();
        Train(Options(path), onStep: step => Cancel(step.Step == 2, cancel), token: cancel.Token);
        RunFolder folder = new(path);
        foreach (string file in (string[])[folder.StateFile, folder.ConfigFile, folder.ChartFile, folder.ReportFile, folder.GateFile])
        {
            File.WriteAllText(TemporaryName.Beside(file, "tmp"), "{");
        }

        Train(Options(path));
        Assert.Equal(FilesOf(whole), FilesOf(path));
    }

    [Fact]
    public void A_run_whose_removal_was_killed_is_replaced_and_a_folder_of_somebody_else_is_not()
    {
        string path = _folder["run"];
        Outcome expected = Train(Options(path));
        RunFolder folder = new(path);
        string[] files = FilesOf(path);
        File.Move(folder.StateFile, TemporaryName.Beside(folder.StateFile, "old"));
        File.Delete(folder.LogFile);
        AssertSame(expected, Train(Options(path)));
        Assert.Equal(files, FilesOf(path));

        string half = _folder["half"];
        Train(Options(half));
        File.Move(new RunFolder(half).StateFile, TemporaryName.Beside(new RunFolder(half).StateFile, "old"));
        new RunFolder(half).CheckRemove();
        new RunFolder(half).Remove();
        Assert.False(Directory.Exists(half));

        File.Delete(folder.StateFile);
        ErrorAssert.Throws(ErrorIds.RunExists, () => Train(Options(path)), "no run");
        Assert.True(File.Exists(folder.LogFile));
    }

    private static string[] FilesOf(string path) =>
        [.. Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories).Select(file => Path.GetRelativePath(path, file)).Select(static name => name.StartsWith("events.", StringComparison.Ordinal) ? "events" : name).Order(StringComparer.Ordinal)];

    private static RunOptions Options(string path) => new() { Path = path };

    private static (RunState, string?, int?) Ending(string path)
    {
        LoKrRun run = new RunFolder(path).Read();
        return (run.State, run.Reason, run.ExitCode);
    }

    private static void Cancel(bool now, CancellationTokenSource source)
    {
        if (now)
        {
            source.Cancel();
        }
    }

    private string Copy(string path, int step)
    {
        string copy = _folder[$"copy-{step}"];
        foreach (string file in Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories).Where(file => Path.GetFileName(file) != "run.lock"))
        {
            string target = Path.Combine(copy, Path.GetRelativePath(path, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }

        return copy;
    }

    private static LoKrModel CreateModel(TinyKind kind, bool fresh, int seed)
    {
        random.manual_seed(seed);
        return fresh ? TinyClassifier.CreateFresh("odd", "even") : kind.Create();
    }

    // A process of its own would begin with a new model, an adapter of the same seed and a generator in any state.
    private static Outcome Train(
        RunOptions? run,
        TinyKind kind = TinyKind.Classifier,
        TrainingOptions? options = null,
        Action<LoKrTrainingStep>? onStep = null,
        Action<RunRecorder?>? onScore = null,
        int rows = 40,
        int modelSeed = 5,
        bool fresh = false,
        CancellationToken? token = null)
    {
        using LoKrModel model = CreateModel(kind, fresh, modelSeed);
        LoKrConfig config = new() { R = 4, TargetModules = ModuleSelector.FromNames(["mix"]), RankDropout = 0.3, ModuleDropout = 0.2 };
        model.AddAdapter(kind.HeadTask() is TaskType head ? config with { ModulesToSave = ["classifier"], TaskType = head } : config, seed: 1);
        random.manual_seed(Environment.TickCount64);
        options ??= s_options;
        RunRecorder? recorder = null;
        using ITrainingTask task = kind.TaskOn(model, rows, options);
        using ScoredTask validation = new(kind.TaskOn(model, 20, options), () => onScore?.Invoke(recorder));
        LoKrTrainingResult result = RunRecorder.Record(run, model, task, validation, options,
            journal => Trainer.Run([model], task, validation, options, journal, onStep, token ?? Token), opened => recorder = opened);
        return new Outcome(result, BytesOf(model), recorder?.Warnings ?? []);
    }

    private static (Outcome Outcome, bool NeedsToday) TrainDated(RunOptions run, DateTime day, Action<LoKrTrainingStep>? onStep = null, string answer = "x", CancellationToken? token = null)
    {
        random.manual_seed(5);
        using LoKrModel model = TinyLanguageModel.Create(new TinyTokenizer
        {
            Template = "{{ strftime_now('%d') }}{% for m in messages %}{{ m.role[0] ~ ':' ~ m.content ~ ';' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}",
        });
        model.AddAdapter(new() { R = 4, TargetModules = ModuleSelector.FromNames(["mix"]) }, seed: 1);
        DataRow[] rows = [.. Enumerable.Range(0, 12).Select(i => new DataRow(
            new Dictionary<string, object?> { ["instruction"] = new string('p', 1 + (i % 3)), ["output"] = answer + (char)('a' + i) }, $"t.jsonl:{i + 1}"))];
        using CausalLanguageTask task = new(model, rows, reading: new() { Day = day });
        TrainingOptions options = new() { Epochs = 2, BatchSize = 4, LearningRate = 1e-2, Seed = 3, EvaluateBefore = true };
        bool needsToday = FormerRun.NeedsToday(run, model, task, task, options);
        LoKrTrainingResult result = RunRecorder.Train(run, model, task, task, options, onStep, null, null, token ?? Token);
        return (new(result, BytesOf(model), []), needsToday);
    }

    private static LoKrTrainingResult TrainEncoder(string path, string folder, SentencePooling pooling, Action<LoKrTrainingStep>? onStep = null, CancellationToken? token = null)
    {
        using LoKrModel model = ModelLoader.Load(folder, new ModelLoadOptions { Pooling = [pooling] });
        model.AddAdapter(new() { R = 4, TargetModules = ModuleSelector.FromNames(["query"]) }, seed: 1);
        using EmbeddingTask task = new(model, [.. Enumerable.Range(0, 12).Select(static i => Rows.Of(i, ("query", TinyData.Words[i]), ("positive", TinyData.Words[i + 1])))]);
        return RunRecorder.Train(Options(path), model, task, null, new() { Epochs = 1, BatchSize = 4, LearningRate = 1e-2, Seed = 3 }, onStep, null, null, token ?? Token);
    }

    private static byte[] BytesOf(LoKrModel model) =>
        [.. model.Adapters.Single().FlatParameters.SelectMany(static (FlatParameter flat) => { using var value = flat.Value.detach().cpu(); return value.bytes.ToArray(); })];

    private static void AssertSame(Outcome expected, Outcome actual)
    {
        Assert.Equal(expected.Bytes, actual.Bytes);
        Assert.Equal(expected.Result.History.Select(Numbers), actual.Result.History.Select(Numbers));
        Assert.Equal(expected.Result.After! with { Elapsed = default }, actual.Result.After! with { Elapsed = default });
        Assert.Equal(expected.Result.Before! with { Elapsed = default }, actual.Result.Before! with { Elapsed = default });
        Assert.Equal((expected.Result.StopReason, expected.Result.BestStep, expected.Result.Seed), (actual.Result.StopReason, actual.Result.BestStep, actual.Result.Seed));

        static LoKrTrainingStep Numbers(LoKrTrainingStep step) => step with { Elapsed = default, TokensPerSecond = 0 };
    }

    private sealed record Outcome(LoKrTrainingResult Result, byte[] Bytes, IReadOnlyList<string> Warnings);

    private sealed class ScoredTask(ITrainingTask inner, Action onScore) : ITrainingTask
    {
        public string Unit => inner.Unit;

        public int RowCount => inner.RowCount;

        public TrainingMetric Metric => inner.Metric;

        public AnswerKind AnswerKind => inner.AnswerKind;

        public bool Collects => inner.Collects;

        public IReadOnlyList<string> Warnings => inner.Warnings;

        public string? DataHash => inner.DataHash;

        public int CountBatches(int batchSize) => inner.CountBatches(batchSize);

        public long LargestBatch(int batchSize) => inner.LargestBatch(batchSize);

        public IEnumerable<TrainingBatch> Batches(BatchOrder order) => inner.Batches(order);

        public Tensor Loss(LoKrModel model, TrainingBatch batch) => inner.Loss(model, batch);

        public int CountEvaluationBatches(int batchSize) => inner.CountEvaluationBatches(batchSize);

        public IEnumerable<TrainingBatch> EvaluationBatches(BatchOrder order) => inner.EvaluationBatches(order);

        public LoKrEvaluation Complete(LoKrEvaluation evaluation, LoKrModel model, IReadOnlyList<float[]> collected, int batchSize) =>
            inner.Complete(evaluation, model, collected, batchSize);

        public BatchScore Score(LoKrModel model, TrainingBatch batch)
        {
            onScore();
            return inner.Score(model, batch);
        }

        public void Dispose() => inner.Dispose();
    }
}
