using System.Collections.Frozen;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Gguf;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using TorchSharp;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The base model, the adapters and the destination of a merge of GGUF files.</summary>
public sealed record GgufMergeOptions
{
    /// <summary>The base model: a GGUF file, or one of the parts of a model that is split.</summary>
    public required string Path { get; init; }

    /// <summary>Adapters in the order in which they are added.</summary>
    public required IReadOnlyList<CheckpointMergeSource> Adapters { get; init; }

    /// <summary>File to write; for a model in several parts the folder that gets parts of the same names.</summary>
    public required string Destination { get; init; }

    /// <summary>Type of the adapted tensors in the result; null to keep that of each. Norms stay in F32.</summary>
    public GgmlType? TensorType { get; init; }

    /// <summary>Replace an existing destination.</summary>
    public bool Force { get; init; }

    /// <summary>Refuse a result that is not finite.</summary>
    public bool Safe { get; init; }
}

/// <summary>
/// Merges LoKr adapters into a language model as GGUF. The rows that adapters change are dequantized, changed in float64, rounded to float32
/// and quantized as llama.cpp does; everything else is copied byte for byte. The adapter has the names of transformers; reordered rows, fused
/// attention and parts are those of the file.
/// </summary>
public sealed class GgufMerge : IDiskMerge
{
    private const string ResumeName = "lokr-merge";

    // Quantizers search, so that processors are what limits a merge; memory is a small buffer for each.
    private const int MostThreads = 64;

    private readonly GgufMergeOptions _options;
    private readonly GgufModel _model;
    private readonly List<string> _warnings = [];
    private readonly MergePlan _plan;
    private readonly MergeAdapters? _adapters;
    private readonly QuantizationLoss _loss = new();
    private readonly IReadOnlyList<GgufMergeFile> _files;

    private GgufMerge(GgufMergeOptions options)
    {
        _options = options;
        BasePath = Path.GetFullPath(options.Path);
        Destination = Path.GetFullPath(options.Destination);
        _model = GgufModel.Open(BasePath);
        try
        {
            CheckDestination();
            _plan = new MergePlan(_model);
            _adapters = MergeAdapters.Open(options.Adapters, MergeBase.Of(BasePath, new(_model, BasePath, Describe()), _plan), fingerprint: null);
            _warnings.AddRange(_adapters.Warnings);
            if (_plan.Added.Count > 0)
            {
                throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                    $"The adapter adds {string.Join(", ", _plan.Added.Keys)}, for which a language model as GGUF has no place.", "Merge it into the model's safetensors folder.") { Target = _plan.Added.Keys.First() };
            }

            _files = [.. _model.Parts.Select(CreateFile)];
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Full path of the base model.</summary>
    public string BasePath { get; }

    /// <inheritdoc/>
    public string Destination { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Bytes of the files that are written.</summary>
    public long ByteCount => _files.Sum(static file => file.ByteCount);

    private bool IsSplit => _model.Parts.Count > 1;

    /// <summary>Opens the base model and the adapters and checks that they fit, without writing anything.</summary>
    /// <param name="options">Base model, adapters and destination.</param>
    /// <exception cref="LoKrException">
    /// Files are missing or damaged, the architecture is unknown (<c>LoKr.ModelTypeUnknown</c>), tensors of an adapter do not fit
    /// (<c>LoKr.AdapterKeysMismatch</c>, <c>LoKr.AdapterShapeMismatch</c>), a weight is tied (<c>LoKr.TiedWeight</c>), or has a type that
    /// cannot be read or written (<c>LoKr.GgufTypeUnsupported</c>).
    /// </exception>
    public static GgufMerge Open(GgufMergeOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentException.ThrowIfNullOrWhiteSpace(options.Destination);
        MergeAdapters.Check(options.Adapters, options.Path, options.Destination);
        return new(options);
    }

    /// <inheritdoc/>
    public LoKrMergeResult Run(Action<CheckpointMergeProgress>? progress = null, CancellationToken cancel = default)
    {
        long started = Stopwatch.GetTimestamp();
        TorchRuntime.EnsureLoaded();
        int resumed = IsSplit ? RunParts(progress, started, cancel) : RunFile(progress, started, cancel);
        IReadOnlyList<LoKrMergedWeight> weights = _loss.Report();
        _warnings.AddRange(QuantizationLoss.Warnings(weights, "Store the adapted tensors as Q8_0, merge into the unquantized model before it is quantized, or load the adapter beside the model as a GGUF LoRA."));
        return new()
        {
            Adapters = [.. _options.Adapters.Select(static adapter => adapter.Name)],
            ModuleCount = _plan.ChangedCount,
            SavedModuleCount = _plan.SavedModuleCount,
            Destination = Destination,
            ByteCount = ByteCount,
            Files = [.. _files.Select(static file => file.FileName)],
            ResumedFileCount = resumed,
            Weights = weights,
            Warnings = [.. _warnings],
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{_plan.ChangedCount} weights and {_plan.SavedModuleCount} whole modules of {string.Join(", ", _options.Adapters.Select(static adapter => adapter.Name))} into {BasePath}; {_files.Count} files, {ByteCount:N0} bytes.");

    /// <inheritdoc/>
    public void Dispose()
    {
        _model.Dispose();
        _adapters?.Dispose();
    }

    private void CheckDestination()
    {
        if (!IsSplit && !GgufReader.IsGguf(Destination))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{Destination}' does not end with {GgufReader.Extension}.",
                "The result of a merge into a GGUF file is one file of that kind.") { Target = Destination };
        }

        if (IsSplit && GgufReader.IsGguf(Destination))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"The model has {_model.Parts.Count} parts, and '{Destination}' names one file.",
                "Name a folder; it gets parts of the same names.") { Target = Destination };
        }
    }

    // What transformers' config.json would say.
    private CheckpointBase Describe()
    {
        JsonObject json = new()
        {
            ["model_type"] = _model.Architecture.ModelTypes[0],
            ["architectures"] = new JsonArray("ForCausalLM"),
            ["tie_word_embeddings"] = _model.TiesEmbeddings,
        };
        if (_model.LayerCount is long layers)
        {
            json["num_hidden_layers"] = layers;
        }

        return new(BasePath, new ModelConfig(json, BasePath));
    }

    private GgufMergeFile CreateFile(GgufReader part)
    {
        ILookup<string, MergeRow> rows = _model.Places.Where(pair => ReferenceEquals(pair.Value.Part, part))
            .Select(pair => new MergeRow(pair.Value, Target(pair.Key, pair.Value))).ToLookup(static row => row.Place.Tensor.Name, StringComparer.Ordinal);
        GgufItem[] items = [.. part.Tensors.Select(tensor => new GgufItem(tensor.Name, rows[tensor.Name].All(static row => row.Target.IsCopy) ? tensor.Type : TypeOf(part, tensor), tensor.Shape))];
        bool keepsTypes = items.Zip(part.Tensors).All(static pair => pair.First.Type == pair.Second.Type);
        (byte[] header, IReadOnlyList<GgufTensor> results) = keepsTypes
            ? (ReadHeader(part, part.Header.DataOffset), part.Tensors)
            : GgufHeaderWriter.Build(ReadHeader(part, part.Header.TableOffset), items, part.Header.Alignment);
        return new(IsSplit ? Path.GetFileName(part.FilePath) : Path.GetFileName(Destination), header, part,
            [.. part.Tensors.Zip(results, (source, result) => new GgufTarget(source, result,
            [
                .. rows[source.Name].Where(row => !row.Target.IsCopy || source.Type != result.Type).OrderBy(static row => row.Place.FirstRow)
                    .Select(row => new GgufSegment(row.Target, row.Place, result, _loss)),
            ]))]);
    }

    private MergeTarget Target(string name, GgufPlace place)
    {
        MergeTarget target = _plan.Target(_model.Entries[name]) with
        {
            Precision = torch.ScalarType.Float64,
            RowUnit = place.Tensor.Shape.Count == 1 ? place.Tensor.RowLength : Math.Max(1, place.HeadRows),
        };
        IReadOnlyList<long> stored = _model.Entries[name].Shape;
        return target.Replacement is { Entry.Shape: var shape } replacement && !shape.SequenceEqual(stored)
            ? throw new LoKrException(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
                $"'{replacement.Key}' of adapter '{replacement.Adapter.Name}' has shape [{string.Join(", ", shape)}], and the model's is [{string.Join(", ", stored)}].",
                "A GGUF file keeps the shapes of its tensors; merge into the model's safetensors folder and convert the result.") { Target = replacement.Key }
            : target;
    }

    /// <summary>The type of an adapted tensor in the result.</summary>
    private GgmlType TypeOf(GgufReader part, GgufTensor tensor)
    {
        GgmlType type = tensor.Shape.Count == 1 ? tensor.Type : _options.TensorType ?? tensor.Type;
        if (tensor.RowLength % GgmlTypes.Size(type).Values != 0)
        {
            // As llama.cpp's converter does.
            _warnings.Add($"'{tensor.Name}' has rows of {tensor.RowLength} values, which do not fill the blocks of {type}; it is stored as F16.");
            type = GgmlType.F16;
        }

        _ = BlockFormat.Of(tensor.Type) ?? throw BlockFormat.Unreadable(tensor, part.FilePath);
        return BlockFormat.Of(type)?.Quantize is not null ? type : throw new LoKrException(ErrorIds.GgufTypeUnsupported, LoKrErrorKind.NotSupported,
            $"'{tensor.Name}' in '{part.FilePath}' has type {tensor.Type}, and values cannot be written as {type}.",
            $"Types that can be written: {string.Join(", ", BlockFormat.Writable)}.") { Target = tensor.Name };
    }

    private static byte[] ReadHeader(GgufReader part, long length)
    {
        byte[] bytes = new byte[Math.Min(length, part.Length)];
        part.ReadBytes(0, bytes);
        return bytes;
    }

    private int RunFile(Action<CheckpointMergeProgress>? progress, long started, CancellationToken cancel)
    {
        string folder = Path.GetDirectoryName(Destination)!;
        FileSystem.CreateFolder(folder);
        try
        {
            using FileLock held = DestinationLock.Take(Destination);
            if (Directory.Exists(Destination))
            {
                throw FileErrors.Exists(Destination, $"'{Destination}' is a folder.", "Name a file.");
            }

            FileSystem.CheckReplaceable(Destination, _options.Force);
            OpenShard.RemoveLeftover(Destination);
            Write(folder, _files, FrozenSet<string>.Empty, progress, started, static (_, _, _) => { }, cancel);
            return 0;
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(Destination, exception);
        }
    }

    private int RunParts(Action<CheckpointMergeProgress>? progress, long started, CancellationToken cancel)
    {
        using StagedDirectory staged = new(Destination, _options.Force, resume: ResumeName, mark: "*" + GgufReader.Extension);
        try
        {
            MergeJournal journal = MergeJournal.Open(staged.Path, MergeJournal.Fingerprint(_model.Parts.Select(static part => (part.FilePath, Samples(part))), _adapters!.Opened, _files));
            IReadOnlySet<string> done = journal.KeepFinished(_files, keepsUnfinished: false, cancel);
            Write(staged.Path, [.. _files.Where(file => !done.Contains(file.FileName))], done, progress, started, journal.Add, cancel);
            journal.Commit(staged.Commit);
            return done.Count;
        }
        catch (Exception exception) when (exception is not LoKrException { ErrorId: ErrorIds.DiskFull or ErrorIds.MergeNotFinite })
        {
            staged.LeaveForResume();
            throw;
        }
    }

    private void Write(string folder, IReadOnlyList<GgufMergeFile> files, IReadOnlySet<string> done, Action<CheckpointMergeProgress>? progress, long started,
        Action<string, string, IReadOnlyDictionary<string, long>> onComplete, CancellationToken cancel)
    {
        FileSystem.RequireSpace(folder, Destination, files.Sum(static file => file.ByteCount));
        GgufMergeFile[] finished = [.. _files.Where(file => done.Contains(file.FileName))];
        long bytes = finished.Sum(static file => file.ByteCount);
        int tensors = finished.Sum(static file => file.Targets.Count);
        int total = _files.Sum(static file => file.Targets.Count);
        Dictionary<string, long> notFinite = new(StringComparer.Ordinal);
        Lock gate = new();
        ShardWriter writer = new(folder, _options.Safe, (piece, file) =>
            {
                int count = piece.StartsTensor ? Interlocked.Increment(ref tensors) : Volatile.Read(ref tensors);
                progress?.Invoke(new CheckpointMergeProgress(file.FileName, count, total, Interlocked.Add(ref bytes, piece.Count), ByteCount, Stopwatch.GetElapsedTime(started)));
            },
            (file, sum, counts) =>
            {
                onComplete(file.FileName, sum, counts);
                lock (gate)
                {
                    foreach ((string name, long count) in counts)
                    {
                        notFinite[name] = count;
                    }
                }
            },
            cancel,
            mostThreads: MostThreads);
        writer.Write(files);
        _warnings.AddRange(notFinite.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => ModelErrors.NotFinite(pair.Key, pair.Value, torch.ScalarType.Float16)));
        if (finished.Length > 0)
        {
            _warnings.Add(QuantizationLoss.Unknown(finished.Select(static file => file.FileName)));
        }
    }

    private static string Samples(GgufReader part)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(ReadHeader(part, part.Header.DataOffset));
        foreach (GgufTensor tensor in part.Tensors)
        {
            ContentHash.AppendSamples(hash, tensor.ByteCount, (start, sample) => part.ReadBytes(tensor.Offset + start, sample));
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }

    private sealed record MergeRow(GgufPlace Place, MergeTarget Target);
}
