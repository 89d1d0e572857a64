using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Merges LoKr adapters into the checkpoint of any architecture without building the model: names are matched from the files alone, and
/// weights pass through small buffers from file to file. The result is, bit for bit, that of a merge in memory. Disposing closes the files.
/// </summary>
public sealed class CheckpointMerge : IDisposable
{
    private const string ResumeName = "lokr-merge";
    private static readonly string[] s_baseNames = ["model", "diffusion_pytorch_model"];
    private static readonly JsonSerializerOptions s_json = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, NewLine = "\n" };

    private readonly CheckpointMergeOptions _options;
    private readonly string _baseName;
    private readonly BaseConfig _config;
    private readonly CheckpointReader _source;
    private readonly List<PeftAdapterFolder> _adapters = [];
    private readonly List<string> _warnings = [];
    private readonly MergeMatcher _matcher;
    private readonly IReadOnlyList<MergeShard> _shards;

    private CheckpointMerge(CheckpointMergeOptions options)
    {
        _options = options;
        BasePath = Path.GetFullPath(options.BasePath);
        Destination = Path.GetFullPath(options.Destination);
        _baseName = FindBaseName(BasePath);
        _config = BaseConfig.Read(BasePath);
        _source = CheckpointReader.Open(BasePath, _baseName);
        try
        {
            _matcher = new MergeMatcher(_source, _config, options.Names);
            foreach (CheckpointMergeAdapter adapter in options.Adapters)
            {
                Add(adapter);
            }

            _shards = options.MaxShardBytes is long most ? MergeShard.Split(_source, _matcher, _baseName, most) : MergeShard.Keep(_source, _matcher);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Full path of the base.</summary>
    public string BasePath { get; }

    /// <summary>Full path of the folder to write.</summary>
    public string Destination { get; }

    /// <summary>Names of the files of weights that are written.</summary>
    public IReadOnlyList<string> Files => [.. _shards.Select(static shard => shard.FileName)];

    /// <summary>Bytes of these files.</summary>
    public long ByteCount => _shards.Sum(static shard => shard.ByteCount);

    /// <summary>Number of weights that change.</summary>
    public int ModuleCount => _matcher.ChangedCount;

    /// <summary>Number of modules that adapters replace or add whole.</summary>
    public int SavedModuleCount => _matcher.SavedModuleCount;

    /// <summary>What a person should know before the merge.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Opens base and adapters and checks that they fit, without writing anything.</summary>
    /// <param name="options">What to merge.</param>
    /// <exception cref="LoKrException">
    /// Files are missing or damaged, tensors of an adapter do not fit (<c>LoKr.AdapterKeysMismatch</c>, <c>LoKr.AdapterShapeMismatch</c>), a weight
    /// is tied (<c>LoKr.TiedWeight</c>), two adapters replace one module (<c>LoKr.SavedModuleConflict</c>), or the destination is the source
    /// (<c>LoKr.ExportIntoSource</c>).
    /// </exception>
    public static CheckpointMerge Open(CheckpointMergeOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentException.ThrowIfNullOrWhiteSpace(options.BasePath);
        ArgumentException.ThrowIfNullOrWhiteSpace(options.Destination);
        if (options.Adapters is not { Count: > 0 })
        {
            throw Invalid("No adapter was named.", "Name at least one.");
        }

        if (options.Adapters.FirstOrDefault(static adapter => !double.IsFinite(adapter.Weight)) is { } odd)
        {
            throw Invalid($"The weight of adapter '{odd.Name}' is {odd.Weight.ToString(CultureInfo.InvariantCulture)}.", "Give a finite number, 1 for as trained.");
        }

        if (options.MaxShardBytes is <= 0)
        {
            throw Invalid($"A largest file size of {options.MaxShardBytes} bytes is not possible.", "Name a positive number of bytes.");
        }

        foreach (string source in options.Adapters.Select(static adapter => adapter.Path).Prepend(options.BasePath))
        {
            FolderPaths.CheckApart(source, options.Destination);
        }

        return new CheckpointMerge(options);
    }

    /// <summary>Writes the merged checkpoint, or goes on where an interrupted run with the same files and options stopped.</summary>
    /// <param name="progress">Called as bytes are written, from several threads; null for none.</param>
    /// <param name="cancel">Interrupts the merge; what is finished stays beside the destination for the next run.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.DestinationExists</c>, <c>LoKr.DestinationBusy</c>, <c>LoKr.DiskFull</c>, <c>LoKr.FileNotWritable</c>, <c>LoKr.MergeNotFinite</c>;
    /// the destination is as before.
    /// </exception>
    public LoKrMergeResult Run(Action<CheckpointMergeProgress>? progress = null, CancellationToken cancel = default)
    {
        long started = Stopwatch.GetTimestamp();
        TorchRuntime.EnsureLoaded();
        using StagedDirectory staged = new(Destination, _options.Force, resume: ResumeName);
        using FileStream held = Hold(staged);
        int resumed;
        try
        {
            MergeJournal journal = MergeJournal.Open(staged.Path, Fingerprint());
            resumed = WriteShards(staged.Path, journal, progress, started, cancel);
            WriteIndex(staged.Path);
            WriteCompanions(staged.Path);
        }
        catch (Exception exception) when (exception is not LoKrException { ErrorId: ErrorIds.DiskFull or ErrorIds.MergeNotFinite })
        {
            staged.Keep();
            throw;
        }

        File.Delete(Path.Combine(staged.Path, MergeJournal.FileName));
        staged.Commit();
        return new LoKrMergeResult
        {
            Adapters = [.. _options.Adapters.Select(static adapter => adapter.Name)],
            ModuleCount = ModuleCount,
            SavedModuleCount = SavedModuleCount,
            Destination = Destination,
            ByteCount = ByteCount,
            Files = Files,
            ResumedFileCount = resumed,
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
        _adapters.ForEach(static adapter => adapter.Dispose());
    }

    private static string FindBaseName(string folder)
    {
        if (!Directory.Exists(folder))
        {
            throw FileErrors.NotFound(folder);
        }

        string? found = Array.Find(s_baseNames, name => File.Exists(Path.Combine(folder, name + ".safetensors")) || File.Exists(Path.Combine(folder, name + ".safetensors.index.json")));
        if (found is null && File.Exists(Path.Combine(folder, "model_index.json")))
        {
            string[] parts = [.. Directory.EnumerateDirectories(folder)
                .Where(static part => s_baseNames.Any(name => File.Exists(Path.Combine(part, name + ".safetensors")) || File.Exists(Path.Combine(part, name + ".safetensors.index.json"))))
                .Select(static part => Path.GetFileName(part)).Order(StringComparer.Ordinal)];
            throw new LoKrException(ErrorIds.CheckpointNotFound, LoKrErrorKind.NotFound, $"'{folder}' is a whole pipeline.",
                $"Name the folder of the component that the adapter was made for: {string.Join(", ", parts)}.") { Target = folder };
        }

        return found ?? s_baseNames[0];
    }

    private void Add(CheckpointMergeAdapter adapter)
    {
        PeftAdapterFolder folder = PeftAdapterFolder.Read(adapter.Path);
        _adapters.Add(folder);
        _warnings.AddRange(folder.Warnings.Select(warning => $"{adapter.Name}: {warning}"));
        int saved = _matcher.SavedModuleCount;
        int changed = _matcher.ContributionCount;
        _matcher.Add(adapter.Name, folder.Config, folder.Tensors, adapter.Weight);
        if (_matcher.SavedModuleCount == saved && _matcher.ContributionCount == changed)
        {
            throw new LoKrException(ErrorIds.NothingToMerge, LoKrErrorKind.InvalidData, $"Adapter '{adapter.Name}' has no tensors.", "Train it, or name another folder.") { Target = adapter.Path };
        }

        if (adapter.Weight != 1 && _matcher.SavedModuleCount > saved)
        {
            _warnings.Add($"The modules that '{adapter.Name}' trained whole are put in place as they are; its weight scales the deltas only.");
        }
    }

    // The lock of the operating system: a process that dies gives it back.
    private FileStream Hold(StagedDirectory staged)
    {
        try
        {
            return new FileStream(staged.Path + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, 1, FileOptions.DeleteOnClose);
        }
        catch (IOException exception) when (!FileErrors.IsDiskFull(exception))
        {
            staged.Keep();
            throw new LoKrException(ErrorIds.DestinationBusy, LoKrErrorKind.InvalidOperation,
                $"Another merge is writing '{Destination}'.", "Wait until it is done, or choose another destination.", exception) { Target = Destination };
        }
    }

    private int WriteShards(string folder, MergeJournal journal, Action<CheckpointMergeProgress>? progress, long started, CancellationToken cancel)
    {
        HashSet<string> done = Verify(folder, journal, cancel);
        RequireSpace(folder, _shards.Where(shard => !done.Contains(shard.FileName)).Sum(static shard => shard.ByteCount));
        long bytes = _shards.Where(shard => done.Contains(shard.FileName)).Sum(static shard => shard.ByteCount);
        int tensors = _shards.Where(shard => done.Contains(shard.FileName)).Sum(static shard => shard.Targets.Count);
        int total = _shards.Sum(static shard => shard.Targets.Count);
        void OnWritten(MergePiece piece, MergeShard shard)
        {
            int count = piece is { Target: not null, Start: 0 } ? Interlocked.Increment(ref tensors) : Volatile.Read(ref tensors);
            long written = Interlocked.Add(ref bytes, piece.Count);
            progress?.Invoke(new CheckpointMergeProgress(shard.FileName, count, total, written, ByteCount, Stopwatch.GetElapsedTime(started)));
        }

        new ShardWriter(folder, _options.Safe, OnWritten, (shard, sum) => journal.Add(shard.FileName, sum), cancel)
            .Write(_shards.Where(shard => !done.Contains(shard.FileName)));
        return done.Count;
    }

    /// <summary>Keeps the files of a former run that are what they should be and removes everything else.</summary>
    private HashSet<string> Verify(string folder, MergeJournal journal, CancellationToken cancel)
    {
        HashSet<string> done = new(StringComparer.Ordinal);
        foreach (MergeShard shard in _shards)
        {
            string path = Path.Combine(folder, shard.FileName);
            if (journal.Files.TryGetValue(shard.FileName, out string? sum) && File.Exists(path) && OpenShard.Check(shard, path, cancel) == sum)
            {
                done.Add(shard.FileName);
            }
        }

        foreach (string file in journal.Files.Keys.Where(file => !done.Contains(file)).ToArray())
        {
            journal.Forget(file);
        }

        foreach (string path in Directory.EnumerateFiles(folder).Where(path => !done.Contains(Path.GetFileName(path))).ToArray())
        {
            File.Delete(path);
        }

        foreach (string path in Directory.EnumerateDirectories(folder).ToArray())
        {
            Directory.Delete(path, recursive: true);
        }

        journal.Save();
        return done;
    }

    private void RequireSpace(string folder, long bytes)
    {
        long free = new DriveInfo(OperatingSystem.IsWindows() ? Path.GetPathRoot(folder)! : folder).AvailableFreeSpace;
        if (free < bytes)
        {
            throw new LoKrException(ErrorIds.DiskFull, LoKrErrorKind.InputOutput,
                string.Create(CultureInfo.InvariantCulture, $"'{Destination}' needs {bytes:N0} bytes, but its disk has {free:N0} free."),
                "Free some space, or write to another disk. Nothing that was there before has changed.") { Target = Destination };
        }
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
        foreach (string file in CompanionFiles.List(BasePath).Where(file => !written.Contains(file)))
        {
            CompanionFiles.Copy(Path.Combine(BasePath, file), Path.Combine(folder, file));
        }

        if (_matcher.Added.Count > 0 && File.Exists(Path.Combine(BasePath, BaseConfig.FileName)))
        {
            AtomicFile.WriteText(Path.Combine(folder, BaseConfig.FileName), HeadConfig().ToJsonString(s_json) + "\n");
        }
    }

    private System.Text.Json.Nodes.JsonObject HeadConfig()
    {
        LoKrConfig owner = _adapters.First(adapter => _matcher.Added.Keys.Any(adapter.Tensors.Entries.ContainsKey)).Config;
        string? suffix = owner.TaskType switch
        {
            TaskType.SequenceClassification => "ForSequenceClassification",
            TaskType.TokenClassification => "ForTokenClassification",
            TaskType.QuestionAnswering => "ForQuestionAnswering",
            _ => null,
        };
        string? className = owner.AutoMapping?.BaseModelClass ?? (suffix is null ? _options.HeadClass : null);
        bool classifies = (suffix ?? className)?.EndsWith("Classification", StringComparison.Ordinal) == true;
        long? rows = classifies
            ? _matcher.Added.Where(static pair => pair.Key.EndsWith(".weight", StringComparison.Ordinal) && pair.Value.Count == 2).OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => (long?)pair.Value[0]).LastOrDefault()
            : null;
        return _config.WithHead(className, suffix, rows, _warnings);
    }

    /// <summary>Everything that decides the bytes of the result: a run that finds another one's work starts anew.</summary>
    private string Fingerprint()
    {
        StringBuilder text = new();
        text.AppendLine(typeof(CheckpointMerge).Assembly.ManifestModule.ModuleVersionId.ToString());
        foreach (string file in _source.Files)
        {
            FileInfo info = new(file);
            FileInfo target = info.ResolveLinkTarget(returnFinalTarget: true) as FileInfo ?? info;
            text.AppendLine(CultureInfo.InvariantCulture, $"{file}|{target.Length}|{target.LastWriteTimeUtc.Ticks}");
        }

        foreach ((CheckpointMergeAdapter adapter, PeftAdapterFolder folder) in _options.Adapters.Zip(_adapters))
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"{adapter.Weight:R}");
            foreach (string file in (string[])[PeftAdapterFolder.ConfigFile, PeftAdapterFolder.WeightsFile])
            {
                using FileStream stream = File.OpenRead(Path.Combine(folder.Path, file));
                text.AppendLine(Convert.ToHexString(SHA256.HashData(stream)));
            }
        }

        foreach (MergeShard shard in _shards)
        {
            text.AppendLine(shard.FileName).AppendLine(Convert.ToHexString(SHA256.HashData(shard.Header)));
        }

        return Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())));
    }

    private static LoKrException Invalid(string message, string advice) => new(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, message, advice);
}

/// <summary>An adapter to merge into a checkpoint.</summary>
/// <param name="Path">Folder with <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>.</param>
/// <param name="Weight">Strength, 1 as trained; saved modules are not scaled.</param>
public sealed record CheckpointMergeAdapter(string Path, double Weight = 1)
{
    /// <summary>Name of the folder.</summary>
    public string Name => System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(Path)));
}

/// <summary>What to merge into which checkpoint, and where to write the result.</summary>
public sealed record CheckpointMergeOptions
{
    /// <summary>Folder of the base model: <c>model.safetensors</c> or its shards, or a component of diffusers (<c>diffusion_pytorch_model.safetensors</c>).</summary>
    public required string BasePath { get; init; }

    /// <summary>Adapters in the order in which they are added.</summary>
    public required IReadOnlyList<CheckpointMergeAdapter> Adapters { get; init; }

    /// <summary>Folder to write; it appears complete or not at all.</summary>
    public required string Destination { get; init; }

    /// <summary>Largest file in bytes, tensors alone; null keeps the files of the base.</summary>
    public long? MaxShardBytes { get; init; }

    /// <summary>Replace a folder that is there.</summary>
    public bool Force { get; init; }

    /// <summary>Refuse a result that is not finite.</summary>
    public bool Safe { get; init; }

    /// <summary>Published names of the architecture's modules, where it has two generations of them.</summary>
    public IModuleAliases? Names { get; init; }

    /// <summary>
    /// Class of the architecture with its head, which config.json gets when an adapter brings a head to a bare model and does not say by itself
    /// what it was trained for.
    /// </summary>
    public string? HeadClass { get; init; }
}

/// <summary>How far a merge on disk is.</summary>
/// <param name="File">File that is being written.</param>
/// <param name="Tensors">Tensors that were started.</param>
/// <param name="TotalTensors">Tensors in all.</param>
/// <param name="Bytes">Bytes that were written.</param>
/// <param name="TotalBytes">Bytes to write in all.</param>
/// <param name="Elapsed">Time since the start.</param>
public sealed record CheckpointMergeProgress(string File, int Tensors, int TotalTensors, long Bytes, long TotalBytes, TimeSpan Elapsed);
