using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Tests.Training;
using LoKr.Core.Training;
using LoKr.Models.Loading;
using LoKr.Testing;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Runs;

public sealed class AdapterRegistryTests : IDisposable
{
    private readonly TempFolder _folder = new();

    private AdapterRegistry Registry => new(_folder["registry"]);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_version_is_a_PEFT_folder_with_a_card_and_never_changes()
    {
        string source = Adapter(1);
        LoKrAdapterVersion first = Registry.Register("tickets", source, new() { Description = "night 1", Labels = ["odd", "even"] });
        Assert.Equal(("tickets", 1, "night 1"), (first.Name, first.Version, first.Card.Description));
        Assert.Equal(File.ReadAllBytes(Path.Combine(source, "adapter_model.safetensors")), File.ReadAllBytes(Path.Combine(first.Path, "adapter_model.safetensors")));
        using (PeftAdapterFolder read = PeftAdapterFolder.Read(first.Path))
        {
            Assert.NotEmpty(read.Tensors.Entries);
        }

        LoKrAdapterVersion second = Registry.Register("tickets", Adapter(2));
        Assert.Equal(2, second.Version);
        Assert.Equal([2, 1], Registry.GetVersions("tickets").Select(version => version.Version));
        Assert.Equal("night 1", Registry.Get("tickets", 1).Card.Description);
        Assert.Equal(["tickets"], Registry.Names);
    }

    [Fact]
    public void An_alias_moves_and_moves_back()
    {
        for (int i = 1; i <= 3; i++)
        {
            Registry.Register("tickets", Adapter(i));
        }

        Assert.Null(Registry.Find("tickets"));
        Assert.Equal(3, Registry.Publish("tickets").Version);
        Assert.Equal(1, Registry.Publish("tickets", 1).Version);
        Assert.Equal(2, Registry.Publish("tickets", 2).Version);
        Assert.Equal(2, Registry.Publish("tickets", 2).Version);
        Assert.Equal(["champion"], Registry.Get("tickets").Aliases);
        Assert.Equal(1, Registry.Restore("tickets").Version);
        Assert.Equal(3, Registry.Restore("tickets").Version);
        ErrorAssert.Throws(ErrorIds.VersionNotFound, () => Registry.Restore("tickets"), "was never another one");
        Assert.Equal(3, Registry.Get("tickets").Version);
        Assert.Equal(8, File.ReadLines(_folder["registry", "tickets", "history.jsonl"]).Count());
    }

    [Theory]
    [InlineData(0, "Register 1, Register 3, Publish 1")]
    [InlineData(1, "Register 1, Register 3, Publish 1")]
    [InlineData(2, "Register 1, Publish 1, Register 3")]
    [InlineData(3, "Register 1, Publish 1, Register 2, Register 3, Unregister 2")]
    [InlineData(4, "Register 1, Publish 1, Register 2, Register 3, Unregister 2")]
    [InlineData(5, "Register 1, Publish 1, Register 2, Register 3, Publish 3, Restore 1, Unregister 2")]
    [InlineData(6, "Register 1, Publish 1, Register 2, Register 3, Publish 3, Unregister 2, Restore 1")]
    public void What_a_killed_process_changed_and_did_not_note_is_in_the_history_before_the_next_change(int noted, string expected)
    {
        Registry.Register("tickets", Adapter(1));
        Registry.Publish("tickets");
        Registry.Register("tickets", Adapter(2));
        Registry.Register("tickets", Adapter(3));
        Registry.Publish("tickets");
        Registry.Unregister("tickets", 2);
        Registry.Restore("tickets");
        string file = _folder["registry", "tickets", "history.jsonl"];
        string[] lines = File.ReadAllLines(file);
        Assert.Equal(7, lines.Length);
        File.WriteAllText(file, string.Concat(lines.Take(noted).Select(static line => line + "\n")) + lines[noted][..20]);
        string left = Directory.CreateDirectory(_folder["registry", "tickets", "versions", ".0002.0123456789abcdef0123456789abcdef.old"]).FullName;

        Assert.Equal(4, Registry.Register("tickets", Adapter(4)).Version);
        string[] changes = [.. File.ReadLines(file).Select(static line => JsonDocument.Parse(line).RootElement).Select(static change => $"{change.GetProperty("change")} {change.GetProperty("version")}")];
        Assert.Equal(expected + ", Register 4", string.Join(", ", changes));
        Assert.False(Directory.Exists(left));
    }

    [Fact]
    public void Retention_keeps_the_last_ones_the_champion_its_ancestors_and_the_version_to_go_back_to()
    {
        for (int i = 1; i <= 8; i++)
        {
            // 5 came from 2, and 2 from 1.
            Registry.Register("tickets", Adapter(i), new() { Parent = i switch { 2 => 1, 5 => 2, _ => null } });
        }

        Registry.Publish("tickets", 4);
        Registry.Publish("tickets", 5);
        Assert.Equal([6, 3], Registry.PlanRetention("tickets", 2));
        Assert.Equal([6, 3], Registry.Retain("tickets", 2));
        Assert.Equal([8, 7, 5, 4, 2, 1], Registry.GetVersions("tickets").Select(version => version.Version));
        ErrorAssert.Throws(ErrorIds.VersionInUse, () => Registry.Unregister("tickets", 5), "champion");
        Registry.Unregister("tickets", 8);

        // A number is never used again while a later one exists, and the last one may be.
        Assert.Equal(8, Registry.Register("tickets", Adapter(9)).Version);
    }

    [Fact]
    public void Names_versions_and_files_that_are_wrong_are_errors_by_id()
    {
        ErrorAssert.Throws(ErrorIds.VersionNotFound, () => Registry.GetVersions("tickets"), "tickets");
        ErrorAssert.Throws(ErrorIds.VersionNotFound, () => Registry.Publish("tickets"), "tickets");
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => Registry.Register("../evil", Adapter(1)), "../evil");
        ErrorAssert.Throws(ErrorIds.InvalidArgument, () => Registry.Register(".hidden", Adapter(1)), ".hidden");
        Registry.Register("tickets", Adapter(1));
        ErrorAssert.Throws(ErrorIds.VersionNotFound, () => Registry.Publish("tickets", 2), "version 2");
        ErrorAssert.Throws(ErrorIds.VersionNotFound, () => Registry.Get("tickets", "challenger"), "challenger");
        File.WriteAllText(_folder["registry", "tickets", "aliases.json"], "{\"champion\": {\"version\": \"one\"}}");
        ErrorAssert.Throws(ErrorIds.RegistryInvalid, () => Registry.Get("tickets"), "aliases.json", "champion");
    }

    [Fact]
    public async Task Writers_at_once_lose_no_version_and_readers_see_whole_ones()
    {
        string[] sources = [Adapter(1), Adapter(2), Adapter(3), Adapter(4)];
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        Registry.Publish("tickets", Registry.Register("tickets", sources[0]).Version);
        Task<int> reader = Task.Run(() => ReadUntil(stop.Token));
        await Task.WhenAll(sources.Select(source => Task.Run(() => Write(source))));
        await stop.CancelAsync();
        Assert.True(await reader > 0);
        Assert.Equal(Enumerable.Range(1, 21).Reverse(), Registry.GetVersions("tickets").Select(version => version.Version));

        void Write(string source)
        {
            for (int i = 0; i < 5; i++)
            {
                Registry.Publish("tickets", Registry.Register("tickets", source).Version);
            }
        }

        int ReadUntil(CancellationToken token)
        {
            int count = 0;
            while (!token.IsCancellationRequested)
            {
                using PeftAdapterFolder read = PeftAdapterFolder.Read(Registry.Get("tickets").Path);
                count += read.Tensors.Entries.Count > 0 ? 1 : 0;
            }

            return count;
        }
    }

    [Fact]
    public void What_is_done_to_one_adapter_does_not_depend_on_how_many_there_are()
    {
        string source = Adapter(1);
        Dictionary<string, long> few = Allocations(_folder["few"], source, 3);
        Dictionary<string, long> many = Allocations(_folder["many"], source, 3000);

        // A name of a folder and its path are some hundred bytes each: to list the registry would be half a megabyte.
        Assert.Equal([], many.Where(pair => pair.Value > few[pair.Key] + 100_000).Select(pair => FormattableString.Invariant($"{pair.Key}: {few[pair.Key]} bytes, then {pair.Value}")));
        long before = GC.GetAllocatedBytesForCurrentThread();
        Assert.Equal(3002, new AdapterRegistry(_folder["many"]).Names.Count);
        Assert.True(GC.GetAllocatedBytesForCurrentThread() - before > 200_000);
        Assert.Equal(["n7", "n77"], new AdapterRegistry(_folder["many"]).FindNames(static name => name is "n7" or "n77" or "none"));
    }

    // The second time: the first one also compiles.
    private static Dictionary<string, long> Allocations(string folder, string source, int neighbors)
    {
        for (int i = 0; i < neighbors; i++)
        {
            Directory.CreateDirectory(Path.Combine(folder, $"n{i}", "versions", "0001"));
        }

        AdapterRegistry registry = new(folder);
        (string Name, Action<string> Do)[] operations =
        [
            ("Register", name => registry.Register(name, source)),
            ("Register", name => registry.Register(name, source)),
            ("Publish", name => registry.Publish(name)),
            ("Contains", name => Assert.True(registry.Contains(name))),
            ("GetVersions", name => registry.GetVersions(name)),
            ("Find", name => registry.Find(name)),
            ("Get", name => registry.Get(name, 1)),
            ("Publish 1", name => registry.Publish(name, 1)),
            ("Restore", name => registry.Restore(name)),
            ("PlanRetention", name => registry.PlanRetention(name, 1)),
            ("Retain", name => registry.Retain(name, 1)),
            ("Unregister", name => registry.Unregister(name, registry.Register(name, source).Version)),
        ];
        Dictionary<string, long> bytes = [];
        for (int round = 0; round < 2; round++)
        {
            foreach ((string what, Action<string> action) in operations)
            {
                long before = GC.GetAllocatedBytesForCurrentThread();
                action(round == 0 ? "first" : "tickets");
                bytes[what] = GC.GetAllocatedBytesForCurrentThread() - before;
            }
        }

        return bytes;
    }

    [Fact]
    public void The_versions_of_a_run_are_found_by_its_folder_and_no_other_adapter_is_read()
    {
        LoKr.Testing.TinyModel.WriteBert(_folder["model"]);
        using LoKrModel model = ModelLoader.Load(_folder["model"], new() { Labels = ["access", "billing", "network"], Device = CPU });
        model.AddAdapter(new LoKrConfig { R = 2, TargetModules = ModuleSelector.FromNames(["query"]) }, seed: 1);
        using ITrainingTask task = TrainingTaskFactory.Create(model, [.. DataReader.ReadFile(TinyData.WriteTickets(_folder["train.jsonl"], 8, 1))]);
        RunFolder run = new(_folder["run"]);
        RunRecorder.Train(new() { Path = run.Path }, model, task, null, new() { MaxSteps = 1, Seed = 1 }, null, null, null, TestContext.Current.CancellationToken);
        Assert.Empty(Registry.OfRun(run));
        Registry.Register("tickets", run.AdapterFolder);
        Registry.Register("tickets", run.Path);
        Registry.Register("other", run.Path);
        _folder.Write(Path.Combine("registry", "damaged", "versions", "0001", "card.json"), "{");
        Assert.Equal([("tickets", 2), ("other", 1)], Registry.OfRun(run).Select(static version => (version.Name, version.Version)));
        Assert.Contains("| tickets 2 |", RunReport.Create(run, ReportFormat.Markdown, Registry), StringComparison.Ordinal);
        Registry.Unregister("tickets", 2);
        Assert.Equal(["other"], Registry.OfRun(run).Select(static version => version.Name));
        Assert.Empty(new AdapterRegistry(_folder["elsewhere"]).OfRun(run));
    }

    private string Adapter(int seed)
    {
        string path = _folder[$"adapter-{seed}"];
        random.manual_seed(seed);
        using LoKrModel model = TinyClassifier.Create("odd", "even");
        model.AddAdapter(new LoKrConfig { R = 4, TargetModules = ModuleSelector.FromNames(["mix"]), InitWeights = InitWeights.Random }, seed: seed);
        AdapterExporter.Export(model, "default", path, AdapterLayout.Peft, new() { Force = true });
        return path;
    }
}
