using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.RegularExpressions;
using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;

namespace LoKr.Reliability;

/// <summary>
/// A job is killed before its system calls, one after the other, or its disk is full; the next night does what is left. What the two leave is what
/// one night leaves that nobody disturbed: the run, the verdict, the version and its alias, the history, the report, and nothing of the night before.
/// </summary>
public sealed class NightKillTests : IDisposable
{
    private readonly string _root = Directory.CreateDirectory(Path.Combine(Effort.Folder, $"lokr-{Guid.NewGuid():N}")).FullName;
    private readonly ITestOutputHelper _output;
    private readonly List<string> _problems = [];
    private readonly Dictionary<string, string> _expected;

    public NightKillTests(ITestOutputHelper output)
    {
        _output = output;
        KilledNight.Prepare(_root);
        KilledNight.Reset(_root);
        Assert.Equal(RunExitCodes.Success, KilledNight.Run(_root).ExitCode);
        _expected = KilledNight.Describe(_root);
        Assert.Contains("registry/tickets/versions/0002/adapter_model.safetensors", _expected.Keys);
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public async Task A_night_that_is_killed_before_any_system_call_is_done_by_the_next_one()
    {
        Assert.SkipUnless(NativeCalls.CanTrace, "The tracer is for Linux on x64 and arm64.");
        IReadOnlyList<string> all = await RunAsync(0);
        Assert.InRange(all.Count, 50, 5_000);
        int stride = Math.Max(1, all.Count / Effort.NightKills);
        int kills = 0;
        for (int point = 1 + (Effort.Seed % stride); point <= all.Count; point += stride)
        {
            IReadOnlyList<string> calls = await RunAsync(point);
            kills += calls.Count == point ? 1 : 0;
            RunNext(string.Create(CultureInfo.InvariantCulture, $"Killed before system call {point} of {all.Count} ({calls[^1]})"));
        }

        Assert.True(_problems.Count == 0, string.Join(Environment.NewLine, _problems));
        _output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{kills} kills at {all.Count} system calls; every night was done by the next one."));
    }

    [Fact]
    public void A_night_whose_disk_is_full_at_any_moment_ends_with_7_and_is_done_by_the_next_one()
    {
        using SmallDisk disk = SmallDisk.Mount(KilledNight.FolderIn(_root), kilobytes: 8_000);
        int full = 0;
        int code = RunExitCodes.NoSpace;
        for (int free = 0; code != RunExitCodes.Success; free += Effort.DiskStep)
        {
            KilledNight.Reset(_root);
            disk.Fill(free);
            LoKrJobResult night = KilledNight.Run(_root);
            code = night.ExitCode;
            full += code == RunExitCodes.NoSpace ? 1 : 0;
            string where = string.Create(CultureInfo.InvariantCulture, $"With {free} KiB of free space");
            if (code is not (RunExitCodes.NoSpace or RunExitCodes.Success))
            {
                _problems.Add($"{where}, exit code {code}: {night.ErrorId}, {night.Message}");
            }

            disk.MakeSpace();
            RunNext(where);
        }

        Assert.True(_problems.Count == 0, string.Join(Environment.NewLine, _problems));
        Assert.InRange(full, 2, 1_000);
        _output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{full} nights ended with a full disk, each with 7, and were done by the next one."));
    }

    private Task<IReadOnlyList<string>> RunAsync(int point)
    {
        KilledNight.Reset(_root);
        return NativeCalls.OnOneThread(() => NativeCalls.RunUntil([ChildRoles.NightOnce, _root], point));
    }

    private void RunNext(string where)
    {
        KilledNight.Age(_root);
        LoKrJobResult next = KilledNight.Run(_root);
        Dictionary<string, string> found = KilledNight.Describe(_root);
        string[] differences = [.. _expected.Keys.Union(found.Keys).Where(file => _expected.GetValueOrDefault(file) != found.GetValueOrDefault(file))
            .Select(file => $"{file} is {found.GetValueOrDefault(file, "missing")}, not {_expected.GetValueOrDefault(file, "missing")}")];
        if (next.ExitCode is not (RunExitCodes.Success or RunExitCodes.NothingToDo) || differences.Length > 0)
        {
            _problems.Add($"{where}: {next.Message} {string.Join("; ", differences)}");
        }
    }
}

/// <summary>
/// The night that is killed: a job with a gate, a registry, reports, and retention that removes what the night before left. Its few steps have
/// checkpoints and evaluations.
/// </summary>
internal static class KilledNight
{
    private const string Before = "before";
    private const string Now = "night";

    private static readonly Regex s_times = new("[0-9]{8}T[0-9]{6}Z|(?<=events[.]out[.]tfevents[.]).*");

    /// <summary>The folder of the night.</summary>
    public static string FolderIn(string root) => Path.Combine(root, Now);

    /// <summary>Does the night before.</summary>
    public static void Prepare(string root)
    {
        TinyModel.WriteBert(Path.Combine(root, "model"));
        TinyData.WriteTickets(Path.Combine(root, "eval.jsonl"), 60, 2);
        TinyData.WriteTickets(Path.Combine(root, "train.jsonl"), 32, 3);
        LoKrJobResult first = RunIn(root, Before);
        if (first.ExitCode != RunExitCodes.Success)
        {
            throw new InvalidOperationException(first.Message);
        }

        TinyData.WriteTickets(Path.Combine(root, "train.jsonl"), 96, 1);
    }

    /// <summary>Puts things as they were before the night.</summary>
    public static void Reset(string root)
    {
        string now = FolderIn(root);
        Directory.CreateDirectory(now);
        foreach (string folder in Directory.GetDirectories(now))
        {
            Directory.Delete(folder, recursive: true);
        }

        Copy(Path.Combine(root, Before), now);
    }

    /// <summary>Does the night once elsewhere, where most of it is the compiler's, and then here, where its tracer follows it.</summary>
    public static void RunOnce(string root)
    {
        string warm = $"warm-{Environment.ProcessId}";
        Copy(Path.Combine(root, Before), Path.Combine(root, warm));
        RunIn(root, warm);
        Directory.Delete(Path.Combine(root, warm), recursive: true);
        NativeCalls.StopAtChanges(withoutExchange: false);
        NativeCalls.Mark();
        RunIn(root, Now);
        NativeCalls.Mark();
    }

    /// <summary>Does the night.</summary>
    public static LoKrJobResult Run(string root) => RunIn(root, Now);

    /// <summary>Makes unfinished files as old as they have to be to be taken for those of killed processes.</summary>
    public static void Age(string root)
    {
        foreach (string file in Directory.EnumerateFiles(FolderIn(root), ".*", SearchOption.AllDirectories))
        {
            File.SetLastWriteTimeUtc(file, DateTime.UtcNow.AddMinutes(-5));
        }
    }

    /// <summary>Every file by its name without times, with its content where that holds none: tensors, the changes of the registry, the versions of the run.</summary>
    public static Dictionary<string, string> Describe(string root)
    {
        string now = FolderIn(root);
        return Directory.EnumerateFiles(now, "*", SearchOption.AllDirectories).ToDictionary(path => s_times.Replace(Path.GetRelativePath(now, path), "*"), Content, StringComparer.Ordinal);
    }

    private static string Content(string path) => Path.GetFileName(path) switch
    {
        string name when name.EndsWith(".safetensors", StringComparison.Ordinal) => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(path)))[..8],
        "history.jsonl" => string.Join(", ", File.ReadLines(path).Select(static line => JsonDocument.Parse(line).RootElement).Select(static change => $"{change.GetProperty("change")} {change.GetProperty("version")}")),
        "registered.jsonl" => File.ReadAllText(path).Trim(),
        "aliases.json" => JsonDocument.Parse(File.ReadAllText(path)).RootElement.GetProperty("champion").GetProperty("version").ToString(),
        _ => "there",
    };

    private static LoKrJobResult RunIn(string root, string folder)
    {
        JobRunner runner = new(new()
        {
            Path = Path.Combine(root, folder, "tickets.job.json"),
            Name = "tickets",
            Base = new() { Path = "../model", Device = "cpu" },
            Data = new() { Path = ["../train.jsonl"], Validation = ["../eval.jsonl"] },
            Configuration = new() { R = 2, Alpha = 4, TargetModules = ModuleSelector.FromNames(["query", "value"]), TaskType = TaskType.SequenceClassification },
            Training = new TrainingOptions { MaxSteps = folder == Before ? 1 : 30, BatchSize = 8, LearningRate = 2e-2, Seed = 3, KeepBest = true, EvaluateEvery = 15 },
            Runs = new() { CheckpointEvery = new(15) },
            Gate = folder == Before ? null : new() { Confidence = 0.6 },
            Registry = new() { Path = "registry" },
            Report = new() { Path = "reports" },
            Retention = new() { Runs = 1 },
        }, new() { LoadModel = static (own, labels, token) => JobModel.Load(own, labels, cancellationToken: token) });
        return runner.Run(TestContext.Current.CancellationToken);
    }

    private static void Copy(string source, string destination)
    {
        foreach (string file in Directory.EnumerateFiles(source, "*", SearchOption.AllDirectories))
        {
            string target = Path.Combine(destination, Path.GetRelativePath(source, file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }
    }
}
