using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using TorchSharp;

namespace LoKr.Core.Safetensors;

/// <summary>
/// A model's weights in a folder: <c>model.safetensors</c>, or shards listed by <c>model.safetensors.index.json</c>.
/// Every shard is opened and its header checked at once; tensors are read on demand.
/// </summary>
public sealed class CheckpointReader : ITensorSource
{
    /// <summary>Name of the weights that transformers writes, without extension.</summary>
    internal const string DefaultBaseName = "model";

    /// <summary>Ending of the name of an index, behind the name of the weights.</summary>
    internal const string IndexExtension = ".safetensors.index.json";

    // Those of transformers and of diffusers.
    private static readonly string[] s_baseNames = [DefaultBaseName, "diffusion_pytorch_model"];

    private readonly IReadOnlyList<SafetensorsReader> _shards;
    private readonly Dictionary<string, SafetensorsReader> _owners = new(StringComparer.Ordinal);
    private readonly Dictionary<string, SafetensorsEntry> _entries = new(StringComparer.Ordinal);

    private CheckpointReader(string folder, IReadOnlyList<SafetensorsReader> shards)
    {
        Folder = folder;
        _shards = shards;
        Entries = _entries.AsReadOnly();
        Files = [.. shards.Select(shard => shard.FilePath)];
    }

    /// <summary>The open files, in the order of <see cref="Files"/>.</summary>
    internal IReadOnlyList<SafetensorsReader> Shards => _shards;

    /// <summary>Full path of the folder.</summary>
    public string Folder { get; }

    /// <summary>Full paths of the files the weights are in.</summary>
    public IReadOnlyList<string> Files { get; }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, SafetensorsEntry> Entries { get; }

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> Metadata => _shards[0].Metadata;

    /// <summary>Opens a folder.</summary>
    /// <param name="folder">Folder of the model.</param>
    /// <param name="baseName">Name of the weights without extension: model, adapter_model, diffusion_pytorch_model.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.CheckpointNotFound</c>, <c>LoKr.PickleRefused</c>, <c>LoKr.LinkOutsideFolder</c>, the <c>LoKr.Checkpoint…</c> ids of a bad index,
    /// and the errors of <see cref="SafetensorsReader.Open"/>.
    /// </exception>
    public static CheckpointReader Open(string folder, string baseName = DefaultBaseName)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        string full = Path.GetFullPath(folder);
        if (!Directory.Exists(full))
        {
            throw FileErrors.NotFound(full);
        }

        string single = Path.Combine(full, $"{baseName}.safetensors");
        if (File.Exists(single))
        {
            return Build(full, [single], null);
        }

        string indexPath = Path.Combine(full, $"{baseName}.safetensors.index.json");
        if (File.Exists(indexPath))
        {
            CheckpointIndex index = CheckpointIndex.Read(ModelLinks.Check(full, indexPath));
            return Build(full, index.Files.Select(file => Path.Combine(full, file)), index);
        }

        PickleGuard.ThrowIfOnlyPickles(full, baseName, baseName == "model" ? "pytorch_model" : baseName);

        // diffusers saves other types beside the usual one, or instead of it, with the type in the name.
        string[] variants = [.. Directory.EnumerateFiles(full, $"{baseName}.*.safetensors").Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];
        throw new LoKrException(
            ErrorIds.CheckpointNotFound,
            LoKrErrorKind.NotFound,
            $"'{full}' holds no weights: neither {baseName}.safetensors nor {baseName}.safetensors.index.json.",
            variants.Length == 0
                ? "Name the folder of a Hugging Face model with its safetensors weights."
                : $"Rename the variant to use to {baseName}.safetensors; there is {string.Join(", ", variants)}.")
        {
            Target = full,
        };
    }

    /// <summary>Finds out how the weights in a folder are called.</summary>
    /// <param name="folder">Folder of a model of transformers, or of a component of diffusers.</param>
    /// <returns>The name without extension, or null where there are no weights.</returns>
    internal static string? FindBaseName(string folder) => Array.Find(
        s_baseNames, name => File.Exists(Path.Combine(folder, $"{name}.safetensors")) || File.Exists(Path.Combine(folder, $"{name}.safetensors.index.json")));

    /// <summary>Opens a folder under whichever of these names its weights have.</summary>
    /// <exception cref="LoKrException">As for <see cref="Open"/>.</exception>
    internal static CheckpointReader OpenFolder(string folder) => Open(folder, FindBaseName(folder) ?? DefaultBaseName);

    /// <summary>Opens one safetensors file as a checkpoint of one shard.</summary>
    /// <exception cref="LoKrException">As for <see cref="SafetensorsReader.Open"/>.</exception>
    internal static CheckpointReader OpenFile(string path)
    {
        string full = Path.GetFullPath(path);
        return Build(Path.GetDirectoryName(full)!, SafetensorsReader.Open(full));
    }

    /// <summary>Opens one safetensors file, or a folder, for its values: where weights are quantized, as a <see cref="QuantizedCheckpoint"/>.</summary>
    /// <exception cref="LoKrException">As for <see cref="Open"/> and <see cref="SafetensorsReader.Open"/>; <c>LoKr.QuantizationInvalid</c>.</exception>
    internal static ITensorSource OpenWeights(string path)
    {
        (ITensorSource source, IReadOnlyList<SafetensorsReader> files) = Open();
        try
        {
            QuantizedCheckpoint weights = new(source, files);
            return weights.Weights.Count > 0 ? weights : source;
        }
        catch
        {
            source.Dispose();
            throw;
        }

        (ITensorSource, IReadOnlyList<SafetensorsReader>) Open()
        {
            if (File.Exists(path))
            {
                SafetensorsReader file = SafetensorsReader.Open(path);
                return (file, [file]);
            }

            CheckpointReader folder = OpenFolder(path);
            return (folder, folder.Shards);
        }
    }

    /// <summary>
    /// The tensors as numbers, where weights are quantized: 8-bit floats with their scales, NF4, FP4 and INT8 of bitsandbytes. They have the type F32 and the
    /// shape of their values, and what only describes them is left out.
    /// </summary>
    /// <returns>A source over this reader, which has to stay open, and the names of the formats; null where no weight is quantized.</returns>
    /// <exception cref="LoKrException"><c>LoKr.QuantizationInvalid</c>: scales or settings of a weight are missing or do not fit it.</exception>
    public (ITensorSource Values, IReadOnlyDictionary<string, int> Formats)? FindQuantized()
    {
        QuantizedCheckpoint weights = new(this, _shards);
        return weights.Weights.Count == 0 ? null
            : (weights, weights.Weights.Values.GroupBy(static weight => weight.Format, StringComparer.Ordinal).ToDictionary(static format => format.Key, static format => format.Count(), StringComparer.Ordinal));
    }

    /// <inheritdoc/>
    public torch.Tensor Read(string name, torch.ScalarType? dtype = null, torch.Device? device = null) => Owner(name).Read(name, dtype, device);

    /// <inheritdoc/>
    public void ReadInto(string name, torch.Tensor destination) => Owner(name).ReadInto(name, destination);

    /// <inheritdoc cref="SafetensorsReader.Map"/>
    public torch.Tensor? Map(string name, torch.ScalarType dtype) => Owner(name).Map(name, dtype);

    /// <inheritdoc cref="SafetensorsReader.Prefetch"/>
    public void Prefetch(string name) => Owner(name).Prefetch(name);

    /// <inheritdoc/>
    public void ReadRange(string name, long start, torch.Tensor destination) => Owner(name).ReadRange(name, start, destination);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (SafetensorsReader shard in _shards)
        {
            shard.Dispose();
        }
    }

    private static CheckpointReader Build(string folder, SafetensorsReader file)
    {
        CheckpointReader reader = new(folder, [file]);
        reader.Collect();
        return reader;
    }

    private static CheckpointReader Build(string folder, IEnumerable<string> files, CheckpointIndex? index)
    {
        ModelLinks links = new(folder);
        List<SafetensorsReader> shards = [];
        try
        {
            foreach (string file in files)
            {
                shards.Add(File.Exists(file) ? SafetensorsReader.Open(links.Check(file)) : throw ShardMissing(index!.Path, file));
            }

            CheckpointReader reader = new(folder, shards);
            reader.Collect();
            index?.Check(reader._owners);
            return reader;
        }
        catch
        {
            shards.ForEach(shard => shard.Dispose());
            throw;
        }
    }

    // Tensors of a shard that the index leaves out are kept: the libraries that wrote such files load them too.
    private void Collect()
    {
        foreach (SafetensorsReader shard in _shards)
        {
            foreach ((string name, SafetensorsEntry entry) in shard.Entries)
            {
                if (!_owners.TryAdd(name, shard))
                {
                    throw new LoKrException(
                        ErrorIds.CheckpointTensorMisplaced,
                        LoKrErrorKind.InvalidData,
                        $"Tensor '{name}' is in two shards: '{_owners[name].FilePath}' and '{shard.FilePath}'.",
                        "Get the model again.")
                    {
                        Target = name,
                    };
                }

                _entries.Add(name, entry);
            }
        }
    }

    private SafetensorsReader Owner(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return _owners.TryGetValue(name, out SafetensorsReader? shard) ? shard : throw TensorErrors.NotFound(name, Folder, _entries.Keys);
    }

    private static LoKrException ShardMissing(string index, string file) => new(
        ErrorIds.CheckpointShardMissing,
        LoKrErrorKind.NotFound,
        $"'{index}' lists the shard '{Path.GetFileName(file)}', which is not in the folder.",
        "The download is incomplete; get the missing file.")
    {
        Target = file,
    };
}

/// <summary>The index of a sharded checkpoint: which tensor is in which file.</summary>
/// <param name="Path">Full path of the index.</param>
/// <param name="Map">File name by tensor name.</param>
internal sealed record CheckpointIndex(string Path, IReadOnlyDictionary<string, string> Map)
{
    private static readonly JsonErrors s_errors = new(ErrorIds.CheckpointIndexInvalid, ErrorIds.CheckpointIndexInvalid, "Get the file again.");

    /// <summary>Names of the shards, sorted.</summary>
    public IEnumerable<string> Files => Map.Values.Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal);

    /// <summary>Reads an index; file names that leave the folder are refused.</summary>
    public static CheckpointIndex Read(string path)
    {
        JsonFields weights = JsonFields.Read(path, s_errors).GetObject("weight_map");
        Dictionary<string, string> map = new(StringComparer.Ordinal);
        foreach ((string tensor, JsonElement value) in weights.Members)
        {
            string file = weights.AsString(value, tensor);
            if (file is "" or "." or ".." || file.AsSpan().ContainsAny('/', '\\', '\0'))
            {
                throw weights.Wrong(tensor, "a plain file name", value);
            }

            PickleGuard.ThrowIfPickleName(file);
            map.Add(tensor, file);
        }

        return map.Count > 0 ? new CheckpointIndex(path, map) : throw weights.Invalid("lists no tensors");
    }

    /// <summary>Checks that every tensor is in the file the index says.</summary>
    public void Check(IReadOnlyDictionary<string, SafetensorsReader> owners)
    {
        foreach ((string name, string file) in Map)
        {
            if (!owners.TryGetValue(name, out SafetensorsReader? owner))
            {
                throw Wrong(ErrorIds.CheckpointTensorMissing, name, $"'{Path}' says that tensor '{name}' is in '{file}', but no shard has it.");
            }

            string actual = System.IO.Path.GetFileName(owner.FilePath);
            if (actual != file)
            {
                throw Wrong(ErrorIds.CheckpointTensorMisplaced, name, $"'{Path}' says that tensor '{name}' is in '{file}', but it is in '{actual}'.");
            }
        }
    }

    private static LoKrException Wrong(string id, string name, string message) =>
        new(id, LoKrErrorKind.InvalidData, message, "The index and the shards do not belong together; get the model again.") { Target = name };
}
