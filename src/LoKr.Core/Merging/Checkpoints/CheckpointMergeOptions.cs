using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The base model, the adapters and the destination of a merge on disk.</summary>
public sealed record CheckpointMergeOptions
{
    /// <summary>The base model.</summary>
    public required CheckpointBase Base { get; init; }

    /// <summary>Adapters in the order in which they are added.</summary>
    public required IReadOnlyList<CheckpointMergeSource> Adapters { get; init; }

    /// <summary>Folder to write; it appears complete or not at all.</summary>
    public required string Destination { get; init; }

    /// <summary>Largest file in bytes, without its header; null for the same files as in the base model.</summary>
    public long? MaxShardBytes { get; init; }

    /// <summary>Type that every quantized weight of the base model gets: float32, float16 or bfloat16; null to keep theirs. Their scales and marks are left out then.</summary>
    public ScalarType? DType { get; init; }

    /// <summary>What becomes of the scales of quantized weights that adapters change.</summary>
    public ScaleMode ScaleMode { get; init; }

    /// <summary>Replace an existing folder.</summary>
    public bool Force { get; init; }

    /// <summary>Refuse a result that is not finite.</summary>
    public bool Safe { get; init; }
}

/// <summary>A base model on disk and what is known about its architecture.</summary>
/// <param name="Path">Folder of the model: <c>model.safetensors</c> or its shards, or a component of diffusers (<c>diffusion_pytorch_model.safetensors</c>).</param>
/// <param name="Config">Its config.json, or null for a folder without one.</param>
public sealed record CheckpointBase(string Path, ModelConfig? Config)
{
    /// <summary>Published names of the architecture's modules, where it has two generations of them.</summary>
    public IModuleAliases? Names { get; init; }

    /// <summary>
    /// Class of the architecture with its head. It is written to config.json when an adapter adds a head to a bare model and its own
    /// configuration does not name a task or class.
    /// </summary>
    public string? HeadClass { get; init; }

    /// <summary>The folder whose configuration was read, before it was; null where nothing was read.</summary>
    internal FolderVersion? Version { get; init; }

    /// <summary>Reads the configuration of a model of any architecture.</summary>
    /// <param name="path">Folder of the model.</param>
    /// <exception cref="LoKrException"><c>LoKr.ModelConfigInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static CheckpointBase Read(string path)
    {
        FolderVersion version = FolderVersion.Of(path);
        return new(path, ModelConfig.LoadIfPresent(path)) { Version = version };
    }
}

/// <summary>An adapter on disk. The merge opens it, and closes it when the merge is disposed.</summary>
/// <param name="Path">File or folder of the adapter; the destination must lie apart from it.</param>
/// <param name="Weight">Strength, 1 as trained; modules that were trained whole are not scaled.</param>
public abstract record CheckpointMergeSource(string Path, double Weight)
{
    /// <summary>Last part of the path, for messages and results.</summary>
    public string Name => System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(Path)));

    /// <summary>What <see cref="Weight"/> means where the adapter has DoRA; other than the default it needs an adapter that has.</summary>
    public DoraStrength DoraStrength { get; init; }

    /// <summary>Opens the adapter.</summary>
    public abstract CheckpointMergeAdapter Open();
}

/// <summary>An open adapter that is merged into a checkpoint.</summary>
public sealed record CheckpointMergeAdapter : IDisposable
{
    /// <summary>Name in messages.</summary>
    public required string Name { get; init; }

    /// <summary>Strength, 1 as trained.</summary>
    public required double Weight { get; init; }

    /// <summary>What the strength means where the adapter has DoRA.</summary>
    public DoraStrength DoraStrength { get; init; }

    /// <summary>Configuration of the adapter.</summary>
    public required LoKrConfig Config { get; init; }

    /// <summary>Tensors, named without a prefix: <c>MODULE.lokr_w1</c>, <c>classifier.weight</c>.</summary>
    public required ITensorSource Tensors { get; init; }

    /// <summary>Full paths of the files that it was read from. An interrupted merge is resumed only if their content is unchanged.</summary>
    public required IReadOnlyList<string> Files { get; init; }

    /// <summary>Notes about the configuration, such as keys that are not understood.</summary>
    public IReadOnlyList<string> Warnings { get; init; } = [];

    /// <summary>What its file says about the base model that it was made for; null where it does not.</summary>
    public ModelIdentity? MadeFor { get; init; }

    /// <inheritdoc/>
    public void Dispose() => Tensors.Dispose();
}

/// <summary>How far a merge on disk is.</summary>
/// <param name="File">File that is being written.</param>
/// <param name="Tensors">Tensors that were started.</param>
/// <param name="TotalTensors">Tensors in all.</param>
/// <param name="Bytes">Bytes that were written.</param>
/// <param name="TotalBytes">Bytes to write in all.</param>
/// <param name="Elapsed">Time since the start.</param>
public sealed record CheckpointMergeProgress(string File, int Tensors, int TotalTensors, long Bytes, long TotalBytes, TimeSpan Elapsed);
