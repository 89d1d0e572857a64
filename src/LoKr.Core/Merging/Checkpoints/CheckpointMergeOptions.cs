using System.Text.Json.Nodes;
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

    /// <summary>Folder to write, or the file where the base model is one; it appears complete or not at all.</summary>
    public required string Destination { get; init; }

    /// <summary>Largest file in bytes, without its header; null for the same files as in the base model.</summary>
    public long? MaxShardBytes { get; init; }

    /// <summary>Type that every quantized weight of the base model gets: float32, float16 or bfloat16; null to keep theirs. Their scales and marks are left out then.</summary>
    public ScalarType? DType { get; init; }

    /// <summary>Treatment of the scales of quantized weights that adapters change.</summary>
    public ScaleMode ScaleMode { get; init; }

    /// <summary>Replace an existing folder.</summary>
    public bool Force { get; init; }

    /// <summary>Refuse a result that is not finite.</summary>
    public bool Safe { get; init; }
}

/// <summary>A base model on disk and what is known about its architecture.</summary>
/// <param name="Path">
/// Folder of the model: <c>model.safetensors</c> or its shards, or a component of diffusers (<c>diffusion_pytorch_model.safetensors</c>), or a whole
/// pipeline; a single safetensors file; or the index of shards.
/// </param>
/// <param name="Config">Its config.json, or null for a folder without one.</param>
public sealed record CheckpointBase(string Path, ModelConfig? Config)
{
    /// <summary>The file that makes a folder a pipeline.</summary>
    internal const string PipelineFile = "model_index.json";

    /// <summary>Published names of the architecture's modules, where it has two generations of them.</summary>
    public IModuleAliases? Names { get; init; }

    /// <summary>
    /// Class of the architecture with its head. It is written to config.json when an adapter adds a head to a bare model and its own
    /// configuration does not name a task or class.
    /// </summary>
    public string? HeadClass { get; init; }

    /// <summary>
    /// Completes a copy of <see cref="Config"/> by the keys that other releases of transformers have for the same, as an export of the model does; null
    /// where there are none. Keys that are there stay as they are.
    /// </summary>
    public Action<JsonObject>? CompleteConfig { get; init; }

    /// <summary>The components of a pipeline that have weights, by folder; empty for a model that is not a pipeline.</summary>
    public IReadOnlyDictionary<string, CheckpointBase> Components { get; init; } = new Dictionary<string, CheckpointBase>();

    /// <summary>The folder whose configuration was read, before it was; null where nothing was read.</summary>
    internal FolderVersion? Version { get; init; }

    /// <summary>Reads the configuration of a model of any architecture.</summary>
    /// <param name="path">Folder of the model or of a pipeline; a single file has no configuration.</param>
    /// <exception cref="LoKrException"><c>LoKr.ModelConfigInvalid</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static CheckpointBase Read(string path)
    {
        if (path.EndsWith(CheckpointReader.IndexExtension, StringComparison.Ordinal))
        {
            return Read(System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!) with { Path = path };
        }

        if (File.Exists(path))
        {
            return new(path, null);
        }

        FolderVersion version = FolderVersion.Of(path);
        bool isPipeline = File.Exists(System.IO.Path.Combine(path, PipelineFile)) && CheckpointReader.FindBaseName(path) is null;
        return new(path, ModelConfig.LoadIfPresent(path))
        {
            Version = version,
            Components = isPipeline
                ? Directory.EnumerateDirectories(path).Where(static part => CheckpointReader.FindBaseName(part) is not null).ToDictionary(static part => System.IO.Path.GetFileName(part), Read, StringComparer.Ordinal)
                : new Dictionary<string, CheckpointBase>(),
        };
    }
}

/// <summary>An adapter on disk. The merge opens it, and closes it when the merge is disposed.</summary>
/// <param name="Path">File or folder of the adapter; the destination must lie apart from it.</param>
/// <param name="Weight">Strength, 1 as trained; modules that were trained whole are not scaled.</param>
public abstract record CheckpointMergeSource(string Path, double Weight)
{
    /// <summary>Last part of the path, for messages and results.</summary>
    public string Name => System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(Path)));

    /// <summary>Meaning of <see cref="Weight"/> where the adapter has DoRA; other than the default it needs an adapter that has.</summary>
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

    /// <summary>Meaning of the strength where the adapter has DoRA.</summary>
    public DoraStrength DoraStrength { get; init; }

    /// <summary>Configuration of the adapter; null for a file of a program that stores none.</summary>
    public LoKrConfig? Config { get; init; }

    /// <summary>Tensors, named without a prefix: <c>MODULE.lokr_w1</c>, <c>classifier.weight</c>.</summary>
    public required ITensorSource Tensors { get; init; }

    /// <summary>Full paths of the files that it was read from. An interrupted merge is resumed only if their content is unchanged.</summary>
    public required IReadOnlyList<string> Files { get; init; }

    /// <summary>Notes about the configuration, such as keys that are not understood.</summary>
    public IReadOnlyList<string> Warnings { get; init; } = [];

    /// <summary>The caller's statements about the files, which decide the result too; null for none.</summary>
    internal string? Overrides { get; init; }

    /// <summary>Finds the weights that the adapter changes; null where PEFT's configuration says it.</summary>
    internal IAdapterPlacement? Placement { get; init; }

    /// <summary>Modules with LoRA or LoHa that the configuration describes; empty for LoKr.</summary>
    internal IReadOnlyList<IMergeModule> Others { get; init; } = [];

    /// <summary>Identity of the base model that it was made for, from its file; null where it has none.</summary>
    public ModelIdentity? MadeFor { get; init; }

    /// <inheritdoc/>
    public void Dispose() => Tensors.Dispose();
}

/// <summary>Finds the weights of a model that one adapter changes.</summary>
internal interface IAdapterPlacement
{
    /// <summary>Puts the changes into the plans of the model's components.</summary>
    /// <param name="model">The model.</param>
    /// <param name="adapter">The adapter.</param>
    /// <returns>What there is to say about the adapter on this model.</returns>
    /// <exception cref="LoKrException">The adapter does not fit the model.</exception>
    IReadOnlyList<string> Place(MergeBase model, CheckpointMergeAdapter adapter);

    /// <summary>Whether the adapter changes nothing; reads no more than one layer of one that is trained.</summary>
    bool IsZero { get; }
}

/// <summary>A module of an adapter whose change is a product of other tensors than LoKr's factors.</summary>
internal interface IMergeModule
{
    /// <summary>Name of the module in the adapter.</summary>
    string Name { get; }

    /// <summary>Names of its tensors in the adapter.</summary>
    IEnumerable<string> Keys { get; }

    /// <summary>The ends of the names that the tensors of such a product have, after the module.</summary>
    IEnumerable<string> Suffixes { get; }

    /// <summary>Rows of the product.</summary>
    long Rows { get; }

    /// <summary>Columns of the product, kernel included.</summary>
    long Columns { get; }

    /// <summary>Whether the configuration says that weights are stored in×out.</summary>
    bool IsStoredTransposed { get; }

    /// <summary>Whether the product fits a weight.</summary>
    /// <param name="weight">Its shape, out×in×kernel.</param>
    bool Fits(IReadOnlyList<long> weight);

    /// <summary>The product as a change of a weight.</summary>
    /// <param name="adapter">The adapter.</param>
    /// <param name="kernel">Kernel of the weight.</param>
    /// <param name="isTransposed">Whether the weight is stored in×out.</param>
    RowContribution Contribution(CheckpointMergeAdapter adapter, long[] kernel, bool isTransposed);
}

/// <summary>How far a merge on disk is.</summary>
/// <param name="File">File that is being written.</param>
/// <param name="Tensors">Tensors that were started.</param>
/// <param name="TotalTensors">Tensors in all.</param>
/// <param name="Bytes">Bytes that were written.</param>
/// <param name="TotalBytes">Bytes to write in all.</param>
/// <param name="Elapsed">Time since the start.</param>
public sealed record CheckpointMergeProgress(string File, int Tensors, int TotalTensors, long Bytes, long TotalBytes, TimeSpan Elapsed);
