using System.Security.Cryptography;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Conversion;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Models.Diffusion;
using LoKr.Models.Loading;
using LoKr.Testing;
using TorchSharp;

namespace LoKr.Reliability;

/// <summary>
/// Something that writes a folder or a file in two versions. <see cref="Prepare"/> makes what both versions are written from, once;
/// <see cref="Open"/> loads it in the process that writes, and returns the action that writes a version over what is there.
/// </summary>
internal sealed record Writer(string Name, bool NeedsTorch, bool KeepsOtherFiles, Action<string> Prepare, Func<string, Action<string, int>> Open)
{
    private static readonly LoKrConfig s_config = new()
    {
        TargetModules = ModuleSelector.FromNames(["query", "value", "intermediate.dense", "output.dense"]), R = 4, Alpha = 8, InitWeights = InitWeights.Random,
    };

    /// <summary>Whether the destination is one file.</summary>
    public bool IsFile => Name.EndsWith("file", StringComparison.Ordinal);

    /// <summary>Whether the renames are those of the thread that writes, which is the one that is traced; a merge into one file renames it on a thread of the pool.</summary>
    public bool CommitsOnItsThread => Name != "merged GGUF file";

    public static IReadOnlyList<Writer> All { get; } =
    [
        // Without libtorch, so that a process starts in a fraction of a second.
        new("plain folder", false, true, static _ => { }, static _ => WriteFolder),
        new("disk merge", true, false, PrepareMerge, OpenMerge),
        new("model", true, false, static inputs => EachVersion(version => WriteBert(inputs, version)), static inputs =>
        {
            LoKrModel[] models = [ModelLoader.Load(Path.Combine(inputs, "model0")), ModelLoader.Load(Path.Combine(inputs, "model1"))];
            return (path, version) => ModelExporter.Export(models[version], path, force: true, maxShardBytes: 8_000);
        }),
        new("pipeline", true, false, PreparePipeline, static inputs =>
        {
            StableDiffusionPipeline[] pipelines = [StableDiffusionLoader.Load(Path.Combine(inputs, "pipeline0")), StableDiffusionLoader.Load(Path.Combine(inputs, "pipeline1"))];
            return (path, version) => StableDiffusionExporter.Export(pipelines[version], path, force: true);
        }),
        new("adapter folder", true, true, PrepareAdapters, static inputs => WriteAdapter(inputs, AdapterLayout.Peft)),
        new("adapter file", true, false, PrepareAdapters, static inputs => WriteAdapter(inputs, AdapterLayout.Kohya)),
        new("conversion", true, true, PrepareAdapterFolders, static inputs => (path, version) =>
            AdapterConverter.Convert(Path.Combine(inputs, $"adapter{version}"), path, AdapterLayout.DiffusersModel, new AdapterConvertOptions { Force = true }, out _)),
        new("LoRA folder", true, true, PrepareAdapterFolders, static inputs => (path, version) =>
            AdapterLoraConverter.Convert(Path.Combine(inputs, $"adapter{version}"), path, LoraRank.OfSize(4), new AdapterConvertOptions(), new LoraWriteOptions { Program = AdapterProgram.Peft, Force = true })),
        new("merged GGUF file", true, false, PrepareGguf, OpenGgufMerge),
    ];

    public static Writer Find(string name) => All.Single(writer => writer.Name == name);

    private static void WriteFolder(string path, int version)
    {
        using StagedDirectory staged = new(path, force: true, carryOver: true);
        AtomicFile.WriteText(Path.Combine(staged.Path, "adapter_config.json"), $"{{\"version\": {version}}}");
        AtomicFile.WriteText(Path.Combine(staged.Path, "adapter_model.safetensors"), new string((char)('a' + version), 100_000));
        staged.Commit();
    }

    private static void EachVersion(Action<int> prepare)
    {
        prepare(0);
        prepare(1);
    }

    // The two versions differ in the weights and in a key of config.json.
    private static void WriteBert(string inputs, int version)
    {
        using DisposeScope scope = torch.NewDisposeScope();
        JsonObject config = TinyModel.BertConfig("x", "y");
        config["num_hidden_layers"] = 2;
        config["version"] = version;
        TinyModel.Write(Path.Combine(inputs, $"model{version}"), config, tensors =>
        {
            foreach (torch.Tensor tensor in tensors.Values)
            {
                tensor.add_(version);
            }
        });
        File.WriteAllText(Path.Combine(inputs, $"model{version}", "vocab.txt"), string.Join('\n', (string[])["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", .. TinyData.Words]));
    }

    private static void PreparePipeline(string inputs) => EachVersion(version => TinyPipeline.Write(Path.Combine(inputs, $"pipeline{version}"), edit: (name, config) =>
    {
        if (name == "scheduler")
        {
            config["steps_offset"] = version;
        }
    }));

    private static void PrepareAdapters(string inputs) => WriteBert(inputs, 0);

    private static LoKrModel LoadAdapted(string inputs)
    {
        LoKrModel model = ModelLoader.Load(Path.Combine(inputs, "model0"));
        torch.random.manual_seed(5);
        EachVersion(version => model.AddAdapter(s_config with { Alpha = 8 + version }, $"a{version}"));
        return model;
    }

    private static Action<string, int> WriteAdapter(string inputs, AdapterLayout layout)
    {
        LoKrModel model = LoadAdapted(inputs);
        return (path, version) => AdapterExporter.Export(model, $"a{version}", path, layout, new AdapterWriteOptions { Force = true });
    }

    private static void PrepareAdapterFolders(string inputs)
    {
        PrepareAdapters(inputs);
        using LoKrModel model = LoadAdapted(inputs);
        EachVersion(version => AdapterExporter.Export(model, $"a{version}", Path.Combine(inputs, $"adapter{version}"), AdapterLayout.Peft));
    }

    private static void PrepareMerge(string inputs)
    {
        PrepareAdapterFolders(inputs);
        using LoKrModel model = ModelLoader.Load(Path.Combine(inputs, "model0"));
        ModelExporter.Export(model, Path.Combine(inputs, "base"), maxShardBytes: 4_000);
    }

    private static void PrepareGguf(string inputs)
    {
        TinyGguf.Write(Path.Combine(inputs, "base.gguf"));
        using LoKrModel model = ModelLoader.Load(TinyModel.WriteLlama(Path.Combine(inputs, "llama")));
        torch.random.manual_seed(5);
        EachVersion(version =>
        {
            model.AddAdapter(s_config with { TargetModules = ModuleSelector.FromNames(["q_proj", "down_proj"]), Alpha = 8 + version }, $"a{version}");
            AdapterExporter.Export(model, $"a{version}", Path.Combine(inputs, $"adapter{version}"), AdapterLayout.Peft);
        });
    }

    private static Action<string, int> OpenGgufMerge(string inputs) => (path, version) =>
    {
        using GgufMerge merge = GgufMerge.Open(new GgufMergeOptions
        {
            Path = Path.Combine(inputs, "base.gguf"),
            Destination = path,
            Adapters = [new AdapterMergeSource(Path.Combine(inputs, $"adapter{version}"))],
            Force = true,
        });
        merge.Run();
    };

    private static Action<string, int> OpenMerge(string inputs) => (path, version) =>
    {
        using CheckpointMerge merge = CheckpointMerge.Open(new CheckpointMergeOptions
        {
            Base = BaseModel.Read(Path.Combine(inputs, "base")),
            Destination = path,
            Adapters = [new AdapterMergeSource(Path.Combine(inputs, $"adapter{version}"))],
            Force = true,
        });
        merge.Run();
    };
}

/// <summary>
/// The place where a writer is killed: inputs, the destination alone in a folder, and what both versions look like when nobody disturbs them.
/// The destination holds files of the user where the writer keeps them.
/// </summary>
internal sealed class Workplace : IDisposable
{
    private readonly Dictionary<string, string>[] _versions;

    public Workplace(Writer writer)
    {
        Writer = writer;
        Root = Directory.CreateDirectory(Path.Combine(Effort.Folder, $"lokr-{Guid.NewGuid():N}")).FullName;
        Directory.CreateDirectory(Inputs);
        Directory.CreateDirectory(Path.GetDirectoryName(Destination)!);
        writer.Prepare(Inputs);
        Write = writer.Open(Inputs);
        _versions = [Undisturbed(0), Undisturbed(1)];
        if (_versions[0].Count == 0 || !Differ(_versions[0], _versions[1]))
        {
            throw new InvalidOperationException($"The versions of '{writer.Name}' do not differ.");
        }
    }

    public Writer Writer { get; }

    public Action<string, int> Write { get; }

    public string Root { get; }

    public string Inputs => Path.Combine(Root, "inputs");

    public string Destination => DestinationIn(Root, Writer);

    public static string DestinationIn(string root, Writer writer) => Path.Combine(root, "out", writer.IsFile ? writer.Name.Contains("GGUF", StringComparison.Ordinal) ? "result.gguf" : "result.safetensors" : "result");

    /// <summary>Puts version 0 and the user's files there.</summary>
    public void Reset()
    {
        foreach (string path in Directory.EnumerateFileSystemEntries(Path.GetDirectoryName(Destination)!).ToArray())
        {
            if (File.Exists(path))
            {
                File.Delete(path);
            }
            else
            {
                Directory.Delete(path, recursive: true);
            }
        }

        AddOtherFiles(Destination);
        Write(Destination, 0);
    }

    /// <summary>The version that is at the destination, or what is wrong with it.</summary>
    public (int? Version, string? Problem) Look()
    {
        Dictionary<string, string> found = Describe(Destination);
        int version = Array.FindIndex(_versions, expected => !Differ(expected, found));
        return version >= 0 ? (version, null) : (null, found.Count == 0 ? "there is nothing" : $"neither version: {string.Join(", ", found.Keys.Order(StringComparer.Ordinal))}");
    }

    /// <summary>Everything beside the destination.</summary>
    public IReadOnlyList<string> Leftovers() =>
        [.. Directory.EnumerateFileSystemEntries(Path.GetDirectoryName(Destination)!).Where(path => path != Destination).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];

    /// <summary>Makes leftovers of killed writers of files as old as they have to be to be taken for such.</summary>
    public void Age()
    {
        foreach (string path in Directory.EnumerateFiles(Path.GetDirectoryName(Destination)!).Where(path => path != Destination))
        {
            File.SetLastWriteTimeUtc(path, DateTime.UtcNow.AddMinutes(-5));
        }
    }

    public void Dispose() => Directory.Delete(Root, recursive: true);

    private Dictionary<string, string> Undisturbed(int version)
    {
        string path = Path.Combine(Root, $"expected{version}", Path.GetFileName(Destination));
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        AddOtherFiles(path);
        Write(path, version);
        return Describe(path);
    }

    private void AddOtherFiles(string path)
    {
        if (Writer.KeepsOtherFiles)
        {
            Directory.CreateDirectory(Path.Combine(path, "plots"));
            File.WriteAllText(Path.Combine(path, "notes.txt"), "mine");
            File.WriteAllText(Path.Combine(path, "plots", "loss.csv"), "1,2\n");
        }
    }

    private static Dictionary<string, string> Describe(string path)
    {
        IEnumerable<string> files = File.Exists(path) ? [path] : Directory.Exists(path) ? Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories) : [];
        return files.ToDictionary(file => Path.GetRelativePath(Path.GetDirectoryName(path)!, file), static file => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file))), StringComparer.Ordinal);
    }

    private static bool Differ(Dictionary<string, string> first, Dictionary<string, string> second) =>
        first.Count != second.Count || first.Any(pair => second.GetValueOrDefault(pair.Key) != pair.Value);
}
