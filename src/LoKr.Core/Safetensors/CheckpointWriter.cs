using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using TorchSharp;

namespace LoKr.Core.Safetensors;

/// <summary>Writes a model's weights as Hugging Face folders hold them, in one file or in shards with an index.</summary>
public static class CheckpointWriter
{
    private static readonly Dictionary<string, string> s_metadata = new(StringComparer.Ordinal) { ["format"] = "pt" };
    private static readonly JsonWriterOptions s_json = new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, NewLine = "\n" };

    /// <summary>Throws for a largest file size that is not positive.</summary>
    /// <param name="maxShardBytes">The size in bytes.</param>
    /// <exception cref="LoKrException"><c>LoKr.InvalidArgument</c>, whose target is <c>MaxShardBytes</c>.</exception>
    public static void CheckShardSize(long maxShardBytes)
    {
        if (maxShardBytes <= 0)
        {
            throw new LoKrException(
                ErrorIds.InvalidArgument,
                LoKrErrorKind.InvalidArgument,
                $"A largest file size of {maxShardBytes} bytes is not possible.",
                "Name a positive number of bytes.")
            {
                Target = "MaxShardBytes",
            };
        }
    }

    /// <summary>Writes the weights into a folder that exists; weights of the same name that were there before are replaced.</summary>
    /// <param name="folder">Folder to write into; a <see cref="StagedDirectory"/> makes all files appear at once.</param>
    /// <param name="tensors">Tensors by name; any device.</param>
    /// <param name="maxShardBytes">Largest file, tensors alone; a single larger tensor gets a file of its own.</param>
    /// <param name="baseName">Name of the weights without extension.</param>
    /// <param name="cancellationToken">Checked before every tensor; files that are complete stay.</param>
    /// <exception cref="LoKrException"><c>LoKr.InvalidArgument</c>, and those of <see cref="SafetensorsWriter.Write"/>.</exception>
    public static void Write(
        string folder,
        IReadOnlyDictionary<string, torch.Tensor> tensors,
        long maxShardBytes = long.MaxValue,
        string baseName = "model",
        CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        ArgumentNullException.ThrowIfNull(tensors);
        CheckShardSize(maxShardBytes);
        if (!Directory.Exists(folder))
        {
            throw FileErrors.NotFound(folder);
        }

        List<List<KeyValuePair<string, torch.Tensor>>> shards = Split(tensors, static pair => SafetensorsWriter.ByteCount(pair.Value), maxShardBytes);
        if (shards.Count <= 1)
        {
            SafetensorsWriter.Write(Path.Combine(folder, $"{baseName}.safetensors"), tensors, s_metadata, cancellationToken);
            RemoveStale(folder, baseName, []);
            return;
        }

        SortedDictionary<string, string> map = new(StringComparer.Ordinal);
        List<string> files = [];
        for (int i = 0; i < shards.Count; i++)
        {
            string file = FileName(baseName, i, shards.Count);
            SafetensorsWriter.Write(Path.Combine(folder, file), new Dictionary<string, torch.Tensor>(shards[i], StringComparer.Ordinal), s_metadata, cancellationToken);
            files.Add(file);
            foreach ((string name, _) in shards[i])
            {
                map.Add(name, file);
            }
        }

        WriteIndex(Path.Combine(folder, $"{baseName}.safetensors.index.json"), tensors.Values.Sum(SafetensorsWriter.ByteCount), map);
        RemoveStale(folder, baseName, files);
    }

    /// <summary>Name of a file of several, or of the only one.</summary>
    internal static string FileName(string baseName, int index, int count) => count <= 1
        ? $"{baseName}.safetensors"
        : string.Create(CultureInfo.InvariantCulture, $"{baseName}-{index + 1:D5}-of-{count:D5}.safetensors");

    /// <summary>In the order given, a shard is closed when the next tensor would make it too large.</summary>
    internal static List<List<T>> Split<T>(IEnumerable<T> tensors, Func<T, long> byteCount, long maxShardBytes)
    {
        List<List<T>> shards = [];
        long used = 0;
        foreach (T tensor in tensors)
        {
            long bytes = byteCount(tensor);
            if (shards.Count == 0 || (used > 0 && bytes > maxShardBytes - used))
            {
                shards.Add([]);
                used = 0;
            }

            shards[^1].Add(tensor);
            used += bytes;
        }

        return shards;
    }

    /// <summary>Writes the index of several files.</summary>
    internal static void WriteIndex(string path, long totalBytes, SortedDictionary<string, string> map) => AtomicFile.Write(path, stream =>
    {
        using Utf8JsonWriter json = new(stream, s_json);
        json.WriteStartObject();
        json.WriteStartObject("metadata");
        json.WriteNumber("total_size", totalBytes);
        json.WriteEndObject();
        json.WriteStartObject("weight_map");
        foreach ((string name, string file) in map)
        {
            json.WriteString(name, file);
        }

        json.WriteEndObject();
        json.WriteEndObject();
        json.Flush();
        stream.Write("\n"u8);
    });

    // A folder with old shards beside the new file, or the other way round, would load as the wrong one.
    private static void RemoveStale(string folder, string baseName, List<string> written)
    {
        foreach (string path in Directory.EnumerateFiles(folder, $"{baseName}-*-of-*.safetensors").ToArray())
        {
            if (!written.Contains(Path.GetFileName(path)))
            {
                Contention.DeleteFile(path);
            }
        }

        Contention.DeleteFile(Path.Combine(folder, written.Count == 0 ? $"{baseName}.safetensors.index.json" : $"{baseName}.safetensors"));
    }
}
