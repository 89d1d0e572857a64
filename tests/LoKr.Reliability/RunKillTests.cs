using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Distributed;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Reliability;

/// <summary>
/// A run with checkpoints is killed again and again, each time in the process that went on with it; the adapter that it ends with is that of a run
/// that nobody disturbed.
/// </summary>
public sealed class RunKillTests(ITestOutputHelper output) : IDisposable
{
    private readonly string _root = Directory.CreateDirectory(Path.Combine(Effort.Folder, $"lokr-{Guid.NewGuid():N}")).FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public async Task A_run_that_is_killed_at_random_moments_ends_with_the_same_bits()
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        KilledRun.Prepare(_root);
        Stopwatch watch = new();
        Dictionary<string, string> expected = await UndisturbedAsync(watch, cancellation);
        Assert.Contains("adapter/adapter_model.safetensors", expected.Keys);

        // A run takes a few processes to end.
        double longest = watch.Elapsed.TotalMilliseconds / 4;
        Random random = new(Effort.Seed);
        (int kills, int runs, int begun) = (0, 0, 0);
        Task<ChildProcess> next = StartAsync("run-0", cancellation);
        while (kills < Effort.RunKills)
        {
            string name = $"run-{runs}";
            bool ended = false;
            using (ChildProcess child = await next)
            {
                // The one after it starts meanwhile: most of a process is its start.
                next = StartAsync(name, cancellation);
                child.Go();
                Task exit = child.WaitAsync(cancellation);
                await Task.WhenAny(exit, Task.Delay(TimeSpan.FromMilliseconds(random.NextDouble() * longest), cancellation));
                ended = child.HasExited;
                if (ended)
                {
                    Assert.True(child.ExitCode == 0, $"Seed {Effort.Seed}, kill {kills}: the run ended with exit code {child.ExitCode}.");
                }
                else
                {
                    child.Kill();
                    await exit;
                    kills++;
                }
            }

            RunFolder folder = new(Path.Combine(_root, name));
            begun += folder.Exists ? 1 : 0;
            Assert.True(!folder.Exists || folder.Read().State is RunState.Interrupted or RunState.Completed, $"Seed {Effort.Seed}, kill {kills}: the state cannot be told.");
            if (ended || kills % 20 == 0)
            {
                (await next).Dispose();
                if (!ended)
                {
                    await FinishAsync(name, cancellation);
                }

                Check(name, expected, kills);
                runs++;
                next = StartAsync($"run-{runs}", cancellation);
            }
        }

        (await next).Dispose();
        if (Directory.Exists(Path.Combine(_root, $"run-{runs}")))
        {
            await FinishAsync($"run-{runs}", cancellation);
            Check($"run-{runs}", expected, kills);
            runs++;
        }

        Assert.InRange(begun, 1, kills + runs);
        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{kills} kills over {runs} runs of {KilledRun.Steps} steps, most of them when the run had begun ({begun} of {kills + runs} processes left one); every run ended with the bits of the undisturbed one, the same files and no others."));
    }

    [Fact]
    public async Task A_run_goes_on_whatever_its_files_say_about_the_time()
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        KilledRun.Prepare(_root);
        Dictionary<string, string> expected = await UndisturbedAsync(new(), cancellation);
        Random random = new(Effort.Seed);
        using (ChildProcess child = await StartAsync("jumps", cancellation))
        {
            child.Go();
            string log = new RunFolder(Path.Combine(_root, "jumps")).LogFile;
            while (!child.HasExited && !(File.Exists(log) && new FileInfo(log).Length > 2000))
            {
                await Task.Delay(1, cancellation);
            }

            child.Kill();
            await child.WaitAsync(cancellation);
        }

        RunFolder folder = new(Path.Combine(_root, "jumps"));
        foreach (string path in Directory.EnumerateFileSystemEntries(folder.Path, "*", SearchOption.AllDirectories))
        {
            // From long ago into the future.
            File.SetLastWriteTimeUtc(path, DateTime.UnixEpoch.AddDays(random.Next(40_000)));
        }

        string state = File.ReadAllText(folder.StateFile);
        string jumped = Regex.Replace(state, "(?<=\"updated\": \")[0-9]{4}", "2099");
        Assert.NotEqual(state, jumped);
        File.WriteAllText(folder.StateFile, jumped);
        Assert.Equal(RunState.Interrupted, folder.Read().State);
        await FinishAsync("jumps", cancellation);
        Check("jumps", expected, 1);
    }

    [Fact]
    public void A_full_disk_ends_a_run_with_7_and_it_goes_on_when_there_is_space()
    {
        KilledRun.Prepare(_root);
        using SmallDisk disk = SmallDisk.Mount(Path.Combine(_root, "disk"), kilobytes: 400);
        string path = Path.Combine(disk.Path, "run");
        LoKrException error = Assert.Throws<LoKrException>(() => KilledRun.Train(_root, path, step => Fill(disk, step)));
        Assert.Equal((ErrorIds.DiskFull, RunExitCodes.NoSpace), (error.ErrorId, RunExitCodes.Of(error)));
        Assert.NotEqual(RunState.Completed, new RunFolder(path).Read().State);
        File.Delete(Path.Combine(disk.Path, "fill"));
        KilledRun.Train(_root, path);
        KilledRun.Train(_root, Path.Combine(_root, "whole"));
        Assert.Equal(Describe(Path.Combine(_root, "whole")), Describe(path));
    }

    [Fact]
    public void A_run_folder_that_cannot_be_written_ends_a_run_with_7()
    {
        KilledRun.Prepare(_root);
        using SmallDisk disk = SmallDisk.Mount(Path.Combine(_root, "disk"), kilobytes: 4000);
        string path = Path.Combine(disk.Path, "run");
        Assert.Throws<InvalidOperationException>(() => KilledRun.Train(_root, path, static step => Interrupt(step)));
        disk.MakeReadOnly();
        LoKrException error = Assert.Throws<LoKrException>(() => KilledRun.Train(_root, path));
        Assert.Equal((ErrorIds.FileNotWritable, RunExitCodes.NoSpace), (error.ErrorId, RunExitCodes.Of(error)));
    }

    private static void Interrupt(int step)
    {
        if (step == 10)
        {
            throw new InvalidOperationException("The program has a bug.");
        }
    }

    private static void Fill(SmallDisk disk, int step)
    {
        if (step == 20)
        {
            try
            {
                while (true)
                {
                    File.AppendAllBytes(Path.Combine(disk.Path, "fill"), new byte[1024]);
                }
            }
            catch (IOException)
            {
                // Full.
            }
        }
    }

    private Task<ChildProcess> StartAsync(string name, CancellationToken cancellation) => ChildProcess.StartAsync([ChildRoles.Train, _root, name], cancellation);

    private async Task<Dictionary<string, string>> UndisturbedAsync(Stopwatch watch, CancellationToken cancellation)
    {
        await FinishAsync("undisturbed", cancellation, watch);
        return Describe(Path.Combine(_root, "undisturbed"));
    }

    private async Task FinishAsync(string name, CancellationToken cancellation, Stopwatch? watch = null)
    {
        using ChildProcess child = await StartAsync(name, cancellation);
        watch?.Start();
        child.Go();
        await child.WaitAsync(cancellation);
        watch?.Stop();
        Assert.True(child.ExitCode == 0, $"The run ended with exit code {child.ExitCode}.");
    }

    private void Check(string name, Dictionary<string, string> expected, int kills)
    {
        Assert.Equal(RunState.Completed, new RunFolder(Path.Combine(_root, name)).Read().State);
        Dictionary<string, string> found = Describe(Path.Combine(_root, name));
        Assert.True(expected.OrderBy(static pair => pair.Key).SequenceEqual(found.OrderBy(static pair => pair.Key)),
            $"Seed {Effort.Seed}, after {kills} kills: {string.Join(", ", expected.Keys.Union(found.Keys).Where(file => expected.GetValueOrDefault(file) != found.GetValueOrDefault(file)))} differ.");
    }

    // Every file by name, of which that of events has the time of the beginning; those that hold no times by content.
    internal static Dictionary<string, string> Describe(string folder) => Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).ToDictionary(
        path => Path.GetFileName(path).StartsWith("events.", StringComparison.Ordinal) ? "events" : Path.GetRelativePath(folder, path),
        static path => path.EndsWith(".safetensors", StringComparison.Ordinal) || Path.GetFileName(path) == "config.json" ? Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(path))) : "",
        StringComparer.Ordinal);
}

/// <summary>The run that is killed: a tiny classifier with dropout, evaluations, and a checkpoint every third step.</summary>
internal static class KilledRun
{
    public const int Steps = 240;

    public static void Prepare(string root)
    {
        TinyModel.WriteBert(Path.Combine(root, "model"));
        TinyData.WriteTickets(Path.Combine(root, "train.jsonl"), 96, 1);
        TinyData.WriteTickets(Path.Combine(root, "eval.jsonl"), 12, 2);
    }

    /// <summary>Runs everything once elsewhere: the first time is mostly the compiler's.</summary>
    public static void Warm(string root)
    {
        string path = Path.Combine(root, $"warm-{Environment.ProcessId}");
        try
        {
            Train(root, path, static step => Stop(step));
        }
        catch (OperationCanceledException)
        {
            Directory.Delete(path, recursive: true);
        }
    }

    private static void Stop(int step)
    {
        if (step == 13)
        {
            throw new OperationCanceledException();
        }
    }

    /// <summary>Begins the run, or goes on with it.</summary>
    public static void Train(string root, string path, Action<int>? onStep = null) => Open(root, onStep)(path);

    /// <summary>Begins the run, or goes on with it, together with the processes that the launcher started beside this one.</summary>
    public static void TrainTogether(string root, string path) => Open(root, null, WorkerGroup.Join(DistributedMode.Auto))(path);

    /// <summary>Loads the model; the result trains in a folder.</summary>
    public static Action<string> Open(string root, Action<int>? onStep = null, WorkerGroup? workers = null)
    {
        LoKrModel model = ModelLoader.Load(Path.Combine(root, "model"), new() { Labels = TinyData.Labels, Seed = 1 });
        model.AddAdapter(new LoKrConfig { R = 2, Alpha = 4, ModuleDropout = 0.1, RankDropout = 0.1, TargetModules = ModuleSelector.FromNames(["query", "value"]), TaskType = TaskType.SequenceClassification }, seed: 1);
        TrainingOptions options = new() { MaxSteps = Steps, BatchSize = 4, GradientAccumulation = 2, LearningRate = 1e-2, Seed = 5, EvaluateEvery = 12, KeepBest = true, Workers = workers };
        ITrainingTask task = Read("train.jsonl");
        ITrainingTask validation = Read("eval.jsonl");
        return path =>
        {
            RunRecorder.Train(new RunOptions { Path = path, CheckpointEvery = new(3) }, model, task, validation, options, step => onStep?.Invoke(step.Step), null, null, CancellationToken.None);
        };

        ITrainingTask Read(string file) => TrainingTaskFactory.Create(model, DataReader.ReadFile(Path.Combine(root, file)));
    }
}
