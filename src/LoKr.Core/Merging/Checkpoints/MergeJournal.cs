using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// The finished files of an interrupted merge with their checksums, the numbers in them that are not finite, and a fingerprint of everything that decides their content. A file
/// counts only if it is listed, and it is listed after it was flushed and renamed.
/// </summary>
internal sealed class MergeJournal
{
    /// <summary>Name of the file; it is removed before the folder appears.</summary>
    public const string FileName = ".lokr-merge.json";

    private static readonly JsonErrors s_errors = new(ErrorIds.InvalidArgument, ErrorIds.InvalidArgument);

    private readonly Lock _gate = new();
    private readonly string _path;
    private readonly string _fingerprint;
    private readonly Dictionary<string, string> _files;
    private readonly Dictionary<string, long> _notFinite;
    private readonly bool _isSame;

    private MergeJournal(string path, string fingerprint, bool isSame, Dictionary<string, string> files, Dictionary<string, long> notFinite) =>
        (_path, _fingerprint, _isSame, _files, _notFinite) = (path, fingerprint, isSame, files, notFinite);

    /// <summary>How many numbers of a tensor the merge made NaN or infinite, by tensor, in all listed files.</summary>
    public IReadOnlyDictionary<string, long> NotFinite => _notFinite;

    /// <summary>Reads the journal of a folder; a damaged one, or one of another merge, counts as empty.</summary>
    /// <param name="folder">Folder of the unfinished merge.</param>
    /// <param name="fingerprint"><see cref="Fingerprint"/> of the merge.</param>
    public static MergeJournal Open(string folder, string fingerprint)
    {
        string path = Path.Combine(folder, FileName);
        Dictionary<string, string> files = new(StringComparer.Ordinal);
        Dictionary<string, long> notFinite = new(StringComparer.Ordinal);
        bool isSame = false;
        if (File.Exists(path) && Read(path) is JsonFields json
            && json.Find("fingerprint") is { ValueKind: JsonValueKind.String } found && found.ValueEquals(fingerprint)
            && json.Find("files") is { ValueKind: JsonValueKind.Object } list)
        {
            isSame = true;
            foreach (JsonProperty file in list.EnumerateObject().Where(static file => file.Value.ValueKind == JsonValueKind.String))
            {
                files.Add(file.Name, file.Value.GetString()!);
            }

            foreach (JsonProperty tensor in json.Find("notFinite") is { ValueKind: JsonValueKind.Object } counts ? counts.EnumerateObject() : default)
            {
                notFinite.Add(tensor.Name, tensor.Value.GetInt64());
            }
        }

        return new MergeJournal(path, fingerprint, isSame, files, notFinite);
    }

    /// <summary>A hash of everything that decides the bytes of the result; a merge resumes the work of an earlier one only if it is the same.</summary>
    /// <param name="sources">Files of the base model, each with a hash of samples of its content.</param>
    /// <param name="adapters">The adapters.</param>
    /// <param name="files">Files of the result.</param>
    /// <param name="options">Options that decide bytes and show in no header.</param>
    public static string Fingerprint(IEnumerable<(string Path, string Samples)> sources, IEnumerable<CheckpointMergeAdapter> adapters, IEnumerable<MergeFile> files, string options = "")
    {
        StringBuilder text = new();
        text.AppendLine(typeof(MergeJournal).Assembly.ManifestModule.ModuleVersionId.ToString()).AppendLine(options);
        foreach ((string path, string samples) in sources)
        {
            FileInfo info = new(path);
            FileInfo target = info.ResolveLinkTarget(returnFinalTarget: true) as FileInfo ?? info;
            text.AppendLine(CultureInfo.InvariantCulture, $"{path}|{target.Length}|{target.LastWriteTimeUtc.Ticks}|{samples}");
        }

        foreach (CheckpointMergeAdapter adapter in adapters)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"{adapter.Weight:R}|{adapter.DoraStrength}|{adapter.Overrides}");
            foreach (string file in adapter.Files)
            {
                text.AppendLine(ContentHash.OfFile(file));
            }
        }

        foreach (MergeFile file in files)
        {
            text.AppendLine(file.FileName).AppendLine(ContentHash.Of(file.Header));
        }

        return ContentHash.OfText(text.ToString());
    }

    /// <summary>
    /// A hash of samples of a file of the base model. Hashing whole files would take as long as the merge; every tensor is sampled, so that
    /// another training of the same model shows.
    /// </summary>
    /// <param name="shard">The file.</param>
    public static string Samples(SafetensorsReader shard)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (SafetensorsEntry entry in shard.Entries.Values.OrderBy(static entry => entry.Offset).ThenBy(static entry => entry.Name, StringComparer.Ordinal))
        {
            CheckpointFingerprint.Append(hash, shard, entry);
            hash.AppendData(BitConverter.GetBytes(entry.Offset));
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }

    /// <summary>Verifies the listed files, and removes everything else from the folder, but for unfinished files of the same merge.</summary>
    /// <param name="files">Files of the result.</param>
    /// <param name="keepsUnfinished">Whether the pieces of unfinished files are taken too.</param>
    /// <param name="cancel">Interrupts the verification.</param>
    /// <returns>Names of the files that are finished.</returns>
    public IReadOnlySet<string> KeepFinished(IReadOnlyList<MergeFile> files, bool keepsUnfinished, CancellationToken cancel)
    {
        string folder = Path.GetDirectoryName(_path)!;
        HashSet<string> finished = new(StringComparer.Ordinal);
        foreach (MergeFile file in files)
        {
            string path = Path.Combine(folder, file.FileName);
            if (_files.TryGetValue(file.FileName, out string? sum) && File.Exists(path) && OpenShard.Check(file, path, cancel) == sum)
            {
                finished.Add(file.FileName);
            }
        }

        foreach (string file in _files.Keys.Where(file => !finished.Contains(file)).ToArray())
        {
            _files.Remove(file);
        }

        HashSet<string> tensors = [.. files.Where(file => finished.Contains(file.FileName)).SelectMany(static file => file.TensorNames)];
        foreach (string tensor in _notFinite.Keys.Where(tensor => !tensors.Contains(tensor)).ToArray())
        {
            _notFinite.Remove(tensor);
        }

        HashSet<string> unfinished = _isSame && keepsUnfinished ? [.. files.Where(file => !finished.Contains(file.FileName)).SelectMany(file => OpenShard.Unfinished(Path.Combine(folder, file.FileName)))] : [];
        foreach (string path in Directory.GetFiles(folder, "*", SearchOption.AllDirectories).Where(path => !finished.Contains(Path.GetRelativePath(folder, path)) && !unfinished.Contains(path)))
        {
            Contention.DeleteFile(path);
        }

        foreach (string path in Directory.GetDirectories(folder).Where(static path => Directory.GetFiles(path, "*", SearchOption.AllDirectories).Length == 0))
        {
            Contention.DeleteFolder(path);
        }

        Save();
        return finished;
    }

    /// <summary>Lists a file that is complete on the disk; from any thread.</summary>
    /// <param name="file">Its name.</param>
    /// <param name="checksum">Its checksum.</param>
    /// <param name="notFinite">How many numbers of its tensors became NaN or infinite.</param>
    public void Add(string file, string checksum, IEnumerable<KeyValuePair<string, long>> notFinite)
    {
        lock (_gate)
        {
            _files[file] = checksum;
            foreach ((string tensor, long count) in notFinite)
            {
                _notFinite[tensor] = count;
            }

            Save();
        }
    }

    /// <summary>Removes the file and lets what was written become the destination.</summary>
    /// <param name="commit">Does that.</param>
    public void Commit(Action commit)
    {
        Remove();
        try
        {
            commit();
        }
        catch when (Directory.Exists(Path.GetDirectoryName(_path)))
        {
            // The finished files stay for the next run, which needs their list.
            Save();
            throw;
        }
    }

    private void Remove()
    {
        try
        {
            Contention.DeleteFile(_path);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }

    /// <summary>Writes the file.</summary>
    public void Save()
    {
        JsonObject files = [];
        foreach ((string name, string checksum) in _files.OrderBy(static pair => pair.Key, StringComparer.Ordinal))
        {
            files[name] = checksum;
        }

        JsonObject notFinite = new(_notFinite.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(static pair => KeyValuePair.Create(pair.Key, (JsonNode?)pair.Value)));
        AtomicFile.WriteText(_path, new JsonObject { ["fingerprint"] = _fingerprint, ["files"] = files, ["notFinite"] = notFinite }.ToJsonString());
    }

    // Half a journal, or one of text that is none, counts as none: the merge starts from the beginning.
    private static JsonFields? Read(string path)
    {
        try
        {
            return JsonFields.Read(path, s_errors);
        }
        catch (LoKrException exception) when (exception.ErrorId == s_errors.Invalid)
        {
            return null;
        }
    }
}
