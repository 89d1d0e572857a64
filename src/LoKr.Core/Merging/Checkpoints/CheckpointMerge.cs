using System.Diagnostics;
using System.Globalization;
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

    private readonly CheckpointMergeOptions _options;
    private readonly MergeBase _model;
    private readonly MergeAdapters? _adapters;
    private readonly List<string> _warnings = [];
    private readonly MergeShard[] _shards;
    private long _resumedBytes;

    private CheckpointMerge(CheckpointMergeOptions options)
    {
        _options = options;
        BasePath = Path.GetFullPath(options.Base.Path);
        Destination = Path.GetFullPath(options.Destination);
        _model = MergeBase.Open(options.Base, options.DType, options.ScaleMode);
        try
        {
            CheckDestination();
            _adapters = MergeAdapters.Open(options.Adapters, _model, _model.Parts is [StoredPart only] ? () => CheckpointFingerprint.Compute(only.Checkpoint) : null);
            _warnings.AddRange(_adapters.Warnings);
            _warnings.AddRange(_model.QuantizationWarnings());
            MergeShard[] shards = [.. Parts.SelectMany(part => options.MaxShardBytes is long most ? MergeShard.Split(part, most) : MergeShard.LikeBase(part))];
            _shards = _model.IsFile ? [shards[0] with { FileName = Path.GetFileName(Destination) }] : shards;
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Full path of the base model.</summary>
    public string BasePath { get; }

    /// <summary>Full path of the folder or file to write.</summary>
    public string Destination { get; }

    /// <summary>Names of the files of weights that are written.</summary>
    public IReadOnlyList<string> Files => [.. _shards.Select(static shard => shard.FileName)];

    /// <summary>Bytes of these files.</summary>
    public long ByteCount => _shards.Sum(static shard => shard.ByteCount);

    /// <summary>Number of weights that change.</summary>
    public int ModuleCount => _model.Parts.Sum(static part => part.Plan.ChangedCount);

    /// <summary>Number of modules that adapters replace or add whole.</summary>
    public int SavedModuleCount => _model.Parts.Sum(static part => part.Plan.SavedModuleCount);

    /// <summary>Warnings about the adapters and the result.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    private IEnumerable<StoredPart> Parts => _model.Parts.Cast<StoredPart>();

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
        int resumed = _model.IsFile ? RunFile(progress, started, cancel) : RunFolder(progress, started, cancel);
        IReadOnlyList<LoKrMergedWeight> weights = [.. Parts.SelectMany(static part => part.Quantized.Loss.Report()).OrderBy(static weight => weight.Kept)];
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
            ResumedByteCount = _resumedBytes,
            Weights = weights,
            Warnings = [.. _warnings],
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{ModuleCount} weights and {SavedModuleCount} whole modules of {string.Join(", ", _options.Adapters.Select(static adapter => adapter.Name))} into {BasePath}; {_shards.Length} files, {ByteCount:N0} bytes.");

    /// <inheritdoc/>
    public void Dispose()
    {
        _model.Dispose();
        _adapters?.Dispose();
    }

    private void CheckDestination()
    {
        const string extension = ".safetensors";
        if (_model.IsFile && !Destination.EndsWith(extension, StringComparison.OrdinalIgnoreCase))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{Destination}' does not end with {extension}.",
                "The result of a merge into a single file is one file of that kind.") { Target = Destination };
        }

        if (!_model.IsFile && Destination.EndsWith(extension, StringComparison.OrdinalIgnoreCase))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{Destination}' names one file, and the base model is a folder.",
                "Name a folder; it gets files of the same names.") { Target = Destination };
        }

        if (_model.IsFile && _options.MaxShardBytes is not null)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, "A single file stays one file, whatever its size.",
                "Leave out the largest size of a file.") { Target = Destination };
        }
    }

    private int RunFolder(Action<CheckpointMergeProgress>? progress, long started, CancellationToken cancel)
    {
        using StagedDirectory staged = new(Destination, _options.Force, resume: ResumeName);
        try
        {
            MergeJournal journal = OpenJournal(staged.Path);
            int resumed = WriteShards(staged.Path, journal, progress, started, cancel);
            foreach (StoredPart part in Parts)
            {
                WriteIndex(staged.Path, part);
                WriteCompanions(staged.Path, part);
            }

            if (_options.Base.Components.Count > 0)
            {
                CompanionFiles.CopyPipeline(BasePath, staged.Path, _options.Base.Components.Keys);
            }

            CheckBaseStayed();
            journal.Commit(staged.Commit);
            return resumed;
        }
        catch (Exception exception) when (exception is not LoKrException { ErrorId: ErrorIds.DiskFull or ErrorIds.MergeNotFinite })
        {
            staged.LeaveForResume();
            throw;
        }
    }

    private int RunFile(Action<CheckpointMergeProgress>? progress, long started, CancellationToken cancel)
    {
        using StagedFile staged = new(Destination, _options.Force, ResumeName);
        try
        {
            MergeJournal journal = OpenJournal(staged.Folder);
            int resumed = WriteShards(staged.Folder, journal, progress, started, cancel);
            journal.Commit(() => staged.Commit(_shards[0].FileName));
            return resumed;
        }
        catch (Exception exception) when (exception is not LoKrException { ErrorId: ErrorIds.DiskFull or ErrorIds.MergeNotFinite })
        {
            staged.LeaveForResume();
            throw;
        }
    }

    private MergeJournal OpenJournal(string folder) => MergeJournal.Open(
        folder, MergeJournal.Fingerprint(Parts.SelectMany(static part => part.Checkpoint.Shards).Select(static shard => (shard.FilePath, MergeJournal.Samples(shard))), _adapters!.Opened, _shards, Parts.First().Quantized.Fingerprint));

    private int WriteShards(string folder, MergeJournal journal, Action<CheckpointMergeProgress>? progress, long started, CancellationToken cancel)
    {
        IReadOnlySet<string> done = journal.KeepFinished(_shards, keepsUnfinished: true, cancel);
        FileSystem.RequireSpace(folder, Destination, _shards.Where(shard => !done.Contains(shard.FileName)).Sum(shard => shard.ByteCount - Unfinished(folder, shard)));
        long bytes = _shards.Where(shard => done.Contains(shard.FileName)).Sum(static shard => shard.ByteCount);
        int tensors = _shards.Where(shard => done.Contains(shard.FileName)).Sum(static shard => shard.Targets.Count);
        int total = _shards.Sum(static shard => shard.Targets.Count);
        void OnWritten(MergePiece piece, MergeFile shard)
        {
            int count = piece.StartsTensor ? Interlocked.Increment(ref tensors) : Volatile.Read(ref tensors);
            long written = Interlocked.Add(ref bytes, piece.Count);
            progress?.Invoke(new CheckpointMergeProgress(shard.FileName, count, total, written, ByteCount, Stopwatch.GetElapsedTime(started)));
        }

        foreach (StoredPart part in Parts)
        {
            FileSystem.CreateFolder(Path.Combine(folder, part.Folder));
        }

        ShardWriter writer = new(folder, _options.Safe, OnWritten, (shard, sum, notFinite) => journal.Add(shard.FileName, sum, notFinite), cancel, resumes: true);
        writer.Write(_shards.Where(shard => !done.Contains(shard.FileName)));
        _resumedBytes = writer.ReusedByteCount + _shards.Where(shard => done.Contains(shard.FileName)).Sum(static shard => shard.ByteCount);
        _warnings.AddRange(_shards.SelectMany(static shard => shard.Targets).Where(target => journal.NotFinite.ContainsKey(target.Name)).OrderBy(static target => target.Name, StringComparer.Ordinal)
            .Select(target => ModelErrors.NotFinite(target.Name, journal.NotFinite[target.Name], SafetensorsDTypes.Natural(target.DType))));
        string[] unknown = [.. _shards.Where(shard => (done.Contains(shard.FileName) || writer.ReusedByteCount > 0) && shard.Targets.Any(static target => target.IsMeasured)).Select(static shard => shard.FileName)];
        if (unknown.Length > 0)
        {
            _warnings.Add(QuantizationLoss.Unknown(unknown));
        }

        return done.Count;
    }

    // Bytes of a file that an interrupted run has written; they need no more room.
    private static long Unfinished(string folder, MergeShard shard) => new FileInfo(OpenShard.Unfinished(Path.Combine(folder, shard.FileName))[0]) is { Exists: true, Length: long length } ? Math.Min(length, shard.ByteCount) : 0;

    private void WriteIndex(string folder, StoredPart part)
    {
        string place = Path.Combine(folder, part.Folder);
        MergeShard[] shards = [.. _shards.Where(shard => Path.GetDirectoryName(Path.Combine(folder, shard.FileName)) == Path.TrimEndingDirectorySeparator(place))];
        if (shards is [MergeShard only] && Path.GetFileName(only.FileName) == part.BaseName + ".safetensors")
        {
            return;
        }

        SortedDictionary<string, string> map = new(StringComparer.Ordinal);
        foreach (MergeShard shard in shards)
        {
            foreach (MergeTarget target in shard.Targets)
            {
                map.Add(target.Name, Path.GetFileName(shard.FileName));
            }
        }

        CheckpointWriter.WriteIndex(
            Path.Combine(place, part.BaseName + CheckpointReader.IndexExtension), shards.Sum(static shard => shard.Targets.Sum(static target => target.Header.ByteCount)), map);
    }

    private void WriteCompanions(string folder, StoredPart part)
    {
        HashSet<string> written = [.. Files];
        string from = Path.Combine(Directory.Exists(BasePath) ? BasePath : Path.GetDirectoryName(BasePath)!, part.Folder);
        string to = Path.Combine(folder, part.Folder);

        // The tokens that an adapter adds are in the tokenizer that was saved with it, where one was.
        IReadOnlyList<string> tokenizer = part.Plan.VocabularySize is null ? [] : [.. _options.Adapters.Select(static adapter => CompanionFiles.TokenizerIn(adapter.Path)).LastOrDefault(static files => files.Count > 0, [])];
        foreach (string file in CompanionFiles.List(from).Where(file => !written.Contains(Path.Combine(part.Folder, file)) && !(tokenizer.Count > 0 && CompanionFiles.IsOfTokenizer(file))))
        {
            MachinePaths.CopyWithout(Path.Combine(from, file), Path.Combine(to, file));
        }

        foreach (string file in tokenizer)
        {
            MachinePaths.CopyWithout(file, Path.Combine(to, Path.GetFileName(file)));
        }

        WriteConfig(to, part);
    }

    // Where the result is another architecture than the base model, or the base has the keys of one generation of transformers alone, which others ignore.
    private void WriteConfig(string folder, StoredPart part)
    {
        CheckpointBase model = _options.Base.Components.GetValueOrDefault(part.Folder, _options.Base);
        if (model.Config is not { } config)
        {
            return;
        }

        JsonObject json = config.ToJsonObject();
        model.CompleteConfig?.Invoke(json);
        if (part.Quantized.Dequantizes)
        {
            json.Remove(ModelConfig.QuantizationKey);
        }

        if (part.Plan.Added.Count > 0)
        {
            CheckpointMergeAdapter owner = _adapters!.Opened.First(adapter => part.Plan.Added.Keys.Any(adapter.Tensors.Entries.ContainsKey));
            HeadConfig.Describe(json, model, part.Plan.Added.Values, owner, _warnings);
        }

        if (part.Plan.VocabularySize is long count)
        {
            ModelConfig.SetVocabularySize(json, count);
        }

        // An equal configuration has been copied, byte by byte.
        if (!JsonNode.DeepEquals(json, config.ToJsonObject()))
        {
            ModelConfig.Write(folder, json);
        }
    }

    // The weights are those of the files that were opened, and the other files are copied at the end: both have to be of one model.
    private void CheckBaseStayed()
    {
        if (_options.Base.Version is FolderVersion version && version.WasReplaced(FolderVersion.Of(Directory.Exists(BasePath) ? BasePath : Path.GetDirectoryName(BasePath)!)))
        {
            throw FileErrors.NotReadable(BasePath, new IOException("Another model took its place while it was merged. Run the merge again."));
        }
    }
}
