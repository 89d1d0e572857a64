using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.IO;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// What an unfinished merge has finished: files with their checksums, and a fingerprint of everything that decides their content. A file
/// counts only if it is listed, and it is listed after it was flushed and renamed.
/// </summary>
internal sealed class MergeJournal
{
    /// <summary>Name of the file; it is removed before the folder appears.</summary>
    public const string FileName = ".lokr-merge.json";

    private readonly Lock _gate = new();
    private readonly string _path;
    private readonly string _fingerprint;
    private readonly Dictionary<string, string> _files;

    private MergeJournal(string path, string fingerprint, Dictionary<string, string> files) => (_path, _fingerprint, _files) = (path, fingerprint, files);

    /// <summary>Checksums of the finished files.</summary>
    public IReadOnlyDictionary<string, string> Files => _files;

    /// <summary>Reads the journal of a folder; one that is damaged or of another merge counts as none.</summary>
    /// <param name="folder">Folder of the unfinished merge.</param>
    /// <param name="fingerprint">What decides the content.</param>
    public static MergeJournal Open(string folder, string fingerprint)
    {
        string path = Path.Combine(folder, FileName);
        Dictionary<string, string> files = new(StringComparer.Ordinal);
        if (File.Exists(path) && Parse(FileErrors.ReadText(path)) is JsonObject json
            && json["fingerprint"] is JsonValue value && value.TryGetValue(out string? found) && found == fingerprint && json["files"] is JsonObject list)
        {
            foreach ((string name, JsonNode? sum) in list)
            {
                if (sum is JsonValue text && text.TryGetValue(out string? checksum))
                {
                    files.Add(name, checksum);
                }
            }
        }

        return new MergeJournal(path, fingerprint, files);
    }

    /// <summary>Takes a file out that is not what it should be.</summary>
    public void Forget(string file) => _files.Remove(file);

    /// <summary>Lists a file that is complete on the disk; from any thread.</summary>
    public void Add(string file, string checksum)
    {
        lock (_gate)
        {
            _files[file] = checksum;
            Save();
        }
    }

    /// <summary>Writes the journal.</summary>
    public void Save()
    {
        JsonObject files = [];
        foreach ((string name, string checksum) in _files.OrderBy(static pair => pair.Key, StringComparer.Ordinal))
        {
            files[name] = checksum;
        }

        AtomicFile.WriteText(_path, new JsonObject { ["fingerprint"] = _fingerprint, ["files"] = files }.ToJsonString());
    }

    private static JsonObject? Parse(string text)
    {
        try
        {
            return JsonNode.Parse(text) as JsonObject;
        }
        catch (JsonException)
        {
            // Half a journal is no journal: the merge starts anew.
            return null;
        }
    }
}
