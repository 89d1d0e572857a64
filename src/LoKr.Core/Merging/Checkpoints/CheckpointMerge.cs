using System.Diagnostics;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Merges LoKr adapters into the checkpoint of any architecture without building the model: names are matched from the files alone, and
/// weights pass through small buffers from file to file. The result is, bit for bit, that of a merge in memory. Disposing closes the files.
/// </summary>
public sealed class CheckpointMerge : IDiskMerge
{
    private const string ResumeName = "lokr-merge";

    private static readonly JsonSerializerOptions s_json = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, NewLine = "\n" };

    private readonly CheckpointMergeOptions _options;
    private readonly string _baseName;
    private readonly CheckpointReader _source;
    private readonly MergeAdapters? _adapters;
    private readonly List<string> _warnings = [];
    private readonly MergePlan _plan;
    private readonly QuantizedMerge _quantized;
    private readonly IReadOnlyList<MergeShard> _shards;

    private CheckpointMerge(CheckpointMergeOptions options)
    {
        _options = options;
        BasePath = Path.GetFullPath(options.Base.Path);
        Destination = Path.GetFullPath(options.Destination);
        _baseName = FindBaseName(BasePath);
        _source = CheckpointReader.Open(BasePath, _baseName);
        try
        {
            QuantizedCheckpoint weights = new(_source, _source.Shards);
            _plan = new MergePlan(weights);
            _quantized = new(weights, options.DType, options.ScaleMode);
            CheckpointTraits traits = new(weights, BasePath, options.Base);
            _adapters = MergeAdapters.Open(options.Adapters, traits, _plan, () => CheckpointFingerprint.Compute(_source));
            _warnings.AddRange(_adapters.Warnings);
            _warnings.AddRange(_quantized.Warnings(_plan));
            _shards = options.MaxShardBytes is long most ? MergeShard.Split(_source, _plan, _quantized, _baseName, most) : MergeShard.Keep(_source, _plan, _quantized);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Full path of the base model.</summary>
    public string BasePath { get; }

    /// <summary>Full path of the folder to write.</summary>
    public string Destination { get; }

    /// <summary>Names of the files of weights that are written.</summary>
    public IReadOnlyList<string> Files => [.. _shards.Select(static shard => shard.FileName)];

    /// <summary>Bytes of these files.</summary>
    public long ByteCount => _shards.Sum(static shard => shard.ByteCount);

    /// <summary>Number of weights that change.</summary>
    public int ModuleCount => _plan.ChangedCount;

    /// <summary>Number of modules that adapters replace or add whole.</summary>
    public int SavedModuleCount => _plan.SavedModuleCount;

    /// <summary>Warnings about the adapters and the result.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Opens the base model and the adapters and checks that they fit, without writing anything.</summary>
    /// <param name="options">Base model, adapters and destination.</param>
    /// <exception cref="LoKrException">
    /// Files are missing or damaged, tensors of an adapter do not fit (<c>LoKr.AdapterKeysMismatch</c>, <c>LoKr.AdapterShapeMismatch</c>), a weight
    /// is tied (<c>LoKr.TiedWeight</c>), two adapters replace one module (<c>LoKr.SavedModuleConflict</c>), or the destination is the source
    /// (<c>LoKr.ExportIntoSource</c>).
    /// </exception>
    public static CheckpointMerge Open(CheckpointMergeOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(options.Base);
        ArgumentException.ThrowIfNullOrWhiteSpace(options.Destination);
        MergeAdapters.Check(options.Adapters, options.Base.Path, options.Destination);
        CheckpointWriter.CheckShardSize(options.MaxShardBytes ?? long.MaxValue);
        return new CheckpointMerge(options);
    }

    /// <summary>Writes the merged checkpoint, or resumes an interrupted run with the same files and options.</summary>
    /// <param name="progress">Called as bytes are written, from several threads; null for none.</param>
    /// <param name="cancel">Interrupts the merge; finished files stay beside the destination for the next run.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.DestinationExists</c>, <c>LoKr.DestinationBusy</c>, <c>LoKr.DiskFull</c>, <c>LoKr.FileNotWritable</c>, <c>LoKr.MergeNotFinite</c>;
    /// the destination is unchanged.
    /// </exception>
    public LoKrMergeResult Run(Action<CheckpointMergeProgress>? progress = null, CancellationToken cancel = default)
    {
        long started = Stopwatch.GetTimestamp();
        TorchRuntime.EnsureLoaded();
        using StagedDirectory staged = new(Destination, _options.Force, resume: ResumeName);
        int resumed;
        try
        {
            MergeJournal journal = MergeJournal.Open(staged.Path, MergeJournal.Fingerprint(_source.Shards.Select(static shard => (shard.FilePath, MergeJournal.Samples(shard))), _adapters!.Opened, _shards, _quantized.Fingerprint));
            resumed = WriteShards(staged.Path, journal, progress, started, cancel);
            WriteIndex(staged.Path);
            WriteCompanions(staged.Path);
            CheckBaseStayed();
            journal.Commit(staged);
        }
        catch (Exception exception) when (exception is not LoKrException { ErrorId: ErrorIds.DiskFull or ErrorIds.MergeNotFinite })
        {
            staged.LeaveForResume();
            throw;
        }

        IReadOnlyList<LoKrMergedWeight> weights = _quantized.Loss.Report();
        _warnings.AddRange(QuantizationLoss.Warnings(weights, "Give the quantized weights another type in the result, merge into the unquantized model, or load the adapter beside the model."));
        return new LoKrMergeResult
        {
            Adapters = [.. _options.Adapters.Select(static adapter => adapter.Name)],
            ModuleCount = ModuleCount,
            SavedModuleCount = SavedModuleCount,
            Destination = Destination,
            ByteCount = ByteCount,
            Files = Files,
            ResumedFileCount = resumed,
            Weights = weights,
            Warnings = [.. _warnings],
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{ModuleCount} weights and {SavedModuleCount} whole modules of {string.Join(", ", _options.Adapters.Select(static adapter => adapter.Name))} into {BasePath}; {_shards.Count} files, {ByteCount:N0} bytes.");

    /// <inheritdoc/>
    public void Dispose()
    {
        _source.Dispose();
        _adapters?.Dispose();
    }

    private static string FindBaseName(string folder)
    {
        if (!Directory.Exists(folder))
        {
            throw FileErrors.NotFound(folder);
        }

        string? found = CheckpointReader.FindBaseName(folder);
        if (found is null && File.Exists(Path.Combine(folder, "model_index.json")))
        {
            string[] parts = [.. Directory.EnumerateDirectories(folder)
                .Where(static part => CheckpointReader.FindBaseName(part) is not null)
                .Select(static part => Path.GetFileName(part)).Order(StringComparer.Ordinal)];
            throw new LoKrException(ErrorIds.CheckpointNotFound, LoKrErrorKind.NotFound, $"'{folder}' is a whole pipeline.",
                $"Name the folder of the component that the adapter was made for: {string.Join(", ", parts)}.") { Target = folder };
        }

        return found ?? CheckpointReader.DefaultBaseName;
    }

    private int WriteShards(string folder, MergeJournal journal, Action<CheckpointMergeProgress>? progress, long started, CancellationToken cancel)
    {
        IReadOnlySet<string> done = journal.KeepFinished(_shards, cancel);
        FileSystem.RequireSpace(folder, Destination, _shards.Where(shard => !done.Contains(shard.FileName)).Sum(static shard => shard.ByteCount));
        long bytes = _shards.Where(shard => done.Contains(shard.FileName)).Sum(static shard => shard.ByteCount);
        int tensors = _shards.Where(shard => done.Contains(shard.FileName)).Sum(static shard => shard.Targets.Count);
        int total = _shards.Sum(static shard => shard.Targets.Count);
        void OnWritten(MergePiece piece, MergeFile shard)
        {
            int count = piece.StartsTensor ? Interlocked.Increment(ref tensors) : Volatile.Read(ref tensors);
            long written = Interlocked.Add(ref bytes, piece.Count);
            progress?.Invoke(new CheckpointMergeProgress(shard.FileName, count, total, written, ByteCount, Stopwatch.GetElapsedTime(started)));
        }

        ShardWriter writer = new(folder, _options.Safe, OnWritten, (shard, sum, notFinite) => journal.Add(shard.FileName, sum, notFinite), cancel);
        writer.Write(_shards.Where(shard => !done.Contains(shard.FileName)));
        _warnings.AddRange(_shards.SelectMany(static shard => shard.Targets).Where(target => journal.NotFinite.ContainsKey(target.Name)).OrderBy(static target => target.Name, StringComparer.Ordinal)
            .Select(target => ModelErrors.NotFinite(target.Name, journal.NotFinite[target.Name], SafetensorsDTypes.Natural(target.DType))));
        string[] unknown = [.. _shards.Where(shard => done.Contains(shard.FileName) && shard.Targets.Any(static target => target is { Storage: WeightStorage, IsUnchanged: false })).Select(static shard => shard.FileName)];
        if (unknown.Length > 0)
        {
            _warnings.Add(QuantizationLoss.Unknown(unknown));
        }

        return done.Count;
    }

    private void WriteIndex(string folder)
    {
        if (_shards.Count == 1 && _shards[0].FileName == _baseName + ".safetensors")
        {
            return;
        }

        SortedDictionary<string, string> map = new(StringComparer.Ordinal);
        foreach (MergeShard shard in _shards)
        {
            foreach (MergeTarget target in shard.Targets)
            {
                map.Add(target.Name, shard.FileName);
            }
        }

        CheckpointWriter.WriteIndex(
            Path.Combine(folder, $"{_baseName}.safetensors.index.json"), _shards.Sum(static shard => shard.Targets.Sum(static target => target.Header.ByteCount)), map);
    }

    private void WriteCompanions(string folder)
    {
        HashSet<string> written = [.. Files];

        // The tokens that an adapter adds are in the tokenizer that was saved with it, where one was.
        IReadOnlyList<string> tokenizer = _plan.VocabularySize is null ? [] : [.. _options.Adapters.Select(static adapter => CompanionFiles.TokenizerIn(adapter.Path)).LastOrDefault(static files => files.Count > 0, [])];
        foreach (string file in CompanionFiles.List(BasePath).Where(file => !written.Contains(file) && !(tokenizer.Count > 0 && CompanionFiles.IsOfTokenizer(file))))
        {
            MachinePaths.CopyWithout(Path.Combine(BasePath, file), Path.Combine(folder, file));
        }

        foreach (string file in tokenizer)
        {
            MachinePaths.CopyWithout(file, Path.Combine(folder, Path.GetFileName(file)));
        }

        WriteConfig(folder);
    }

    // Where the result is another architecture than the base model.
    private void WriteConfig(string folder)
    {
        if (_options.Base.Config is not { } config || (_plan.Added.Count == 0 && _plan.VocabularySize is null && !_quantized.Dequantizes))
        {
            return;
        }

        JsonObject json = config.ToJsonObject();
        if (_quantized.Dequantizes)
        {
            json.Remove(ModelConfig.QuantizationKey);
        }

        if (_plan.Added.Count > 0)
        {
            CheckpointMergeAdapter owner = _adapters!.Opened.First(adapter => _plan.Added.Keys.Any(adapter.Tensors.Entries.ContainsKey));
            HeadConfig.Describe(json, _options.Base, _plan.Added.Values, owner, _warnings);
        }

        if (_plan.VocabularySize is long count)
        {
            ModelConfig.SetVocabularySize(json, count);
        }

        AtomicFile.WriteText(Path.Combine(folder, ModelConfig.FileName), MachinePaths.RemoveFromConfiguration(json.ToJsonString(s_json)) + "\n");
    }

    // The weights are those of the files that were opened, and the other files are copied at the end: both have to be of one model.
    private void CheckBaseStayed()
    {
        if (_options.Base.Version is FolderVersion version && version.WasReplaced(FolderVersion.Of(BasePath)))
        {
            throw FileErrors.NotReadable(BasePath, new IOException("Another model took its place while it was merged. Run the merge again."));
        }
    }
}
