using LoKr.Core.Layouts;
using LoKr.Core.Merging.Checkpoints;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Merging;

/// <summary>Writes models and adapters as folders, merges them, and reads the result.</summary>
internal static class MergeFiles
{
    /// <summary>Writes a model's weights as a folder.</summary>
    public static string Base(string folder, IReadOnlyDictionary<string, Tensor> tensors, long maxShardBytes = long.MaxValue, string baseName = "model", string? config = """{"model_type": "test"}""")
    {
        Directory.CreateDirectory(folder);
        CheckpointWriter.Write(folder, tensors, maxShardBytes, baseName);
        if (config is not null)
        {
            File.WriteAllText(Path.Combine(folder, "config.json"), config);
        }

        return folder;
    }

    /// <summary>Writes an adapter of a model as a folder.</summary>
    public static string Adapter(string folder, LoKrModel model, string name = "default")
    {
        LoKrAdapter adapter = model.GetAdapter(name);
        PeftAdapterFolder.Write(folder, adapter.Config, adapter.GetTensors());
        return folder;
    }

    public static CheckpointMergeOptions Options(string from, string to, params string[] adapters) => new()
    {
        Base = CheckpointBase.Read(from),
        Destination = to,
        Adapters = [.. adapters.Select(static path => new AdapterMergeSource(path))],
    };

    public static LoKrMergeResult Run(CheckpointMergeOptions options, Action<CheckpointMergeProgress>? progress = null)
    {
        using CheckpointMerge merge = CheckpointMerge.Open(options);
        return merge.Run(progress, TestContext.Current.CancellationToken);
    }

    /// <summary>Tensors of a folder.</summary>
    public static Dictionary<string, Tensor> Read(string folder, string baseName = "model")
    {
        using CheckpointReader reader = CheckpointReader.Open(folder, baseName);
        return reader.Entries.Keys.ToDictionary(static name => name, name => reader.Read(name), StringComparer.Ordinal);
    }

    public static Dictionary<string, Tensor> State(LoKrModel model) =>
        model.GetBaseState().ToDictionary(static pair => pair.Key, static pair => pair.Value.detach().clone(), StringComparer.Ordinal);

    /// <summary>Tensors whose bits differ.</summary>
    public static string[] Differences(IReadOnlyDictionary<string, Tensor> expected, IReadOnlyDictionary<string, Tensor> actual) =>
    [
        .. expected.Keys.Union(actual.Keys).Where(key => !expected.TryGetValue(key, out Tensor? first) || !actual.TryGetValue(key, out Tensor? second)
            || first.dtype != second.dtype || !first.shape.SequenceEqual(second.shape) || !first.contiguous().bytes.SequenceEqual(second.contiguous().bytes)).Order(StringComparer.Ordinal),
    ];

    /// <summary>Bytes of every file of a folder.</summary>
    public static Dictionary<string, byte[]> Bytes(string folder) => Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories)
        .ToDictionary(path => Path.GetRelativePath(folder, path), File.ReadAllBytes, StringComparer.Ordinal);
}
