using System.Text.Json;

namespace LoKr.Core.Formats;

/// <summary>The index of a sharded checkpoint: which tensor is in which file.</summary>
/// <param name="Path">Full path of the index.</param>
/// <param name="Map">File name by tensor name.</param>
internal sealed record CheckpointIndex(string Path, IReadOnlyDictionary<string, string> Map)
{
    /// <summary>Names of the shards, sorted.</summary>
    public IEnumerable<string> Files => Map.Values.Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal);

    /// <summary>Reads an index; file names that leave the folder are refused.</summary>
    public static CheckpointIndex Read(string path)
    {
        Dictionary<string, string> map = new(StringComparer.Ordinal);
        try
        {
            using JsonDocument document = JsonDocument.Parse(FileErrors.ReadText(path), new JsonDocumentOptions { MaxDepth = 16 });
            if (document.RootElement.ValueKind != JsonValueKind.Object
                || !document.RootElement.TryGetProperty("weight_map", out JsonElement weights)
                || weights.ValueKind != JsonValueKind.Object)
            {
                throw Invalid(path, "it has no object 'weight_map'");
            }

            foreach (JsonProperty weight in weights.EnumerateObject())
            {
                string? file = weight.Value.ValueKind == JsonValueKind.String ? weight.Value.GetString() : null;
                if (string.IsNullOrEmpty(file) || file is "." or ".." || file.AsSpan().ContainsAny('/', '\\', '\0'))
                {
                    throw Invalid(path, $"the file of tensor '{weight.Name}' is not a plain file name");
                }

                PickleGuard.ThrowIfPickleName(file);
                if (!map.TryAdd(weight.Name, file))
                {
                    throw Invalid(path, $"tensor '{weight.Name}' is listed twice");
                }
            }
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            throw Invalid(path, exception.Message, exception);
        }

        return map.Count > 0 ? new CheckpointIndex(path, map) : throw Invalid(path, "it lists no tensors");
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

    private static LoKrException Invalid(string path, string why, Exception? inner = null) => new(
        ErrorIds.CheckpointIndexInvalid,
        LoKrErrorKind.InvalidData,
        $"'{path}' is not a valid index: {why}.",
        "Get the file again.",
        inner)
    {
        Target = path,
    };
}
