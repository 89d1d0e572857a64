using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runs;

/// <summary>The content of a job file before it is checked: values, and the line of each key. What a file in another notation becomes.</summary>
/// <param name="Path">The file, for messages.</param>
/// <param name="Root">The values.</param>
/// <param name="Lines">Lines by the keys that lead there, separated by periods, as they are written; from 1.</param>
public sealed record JobDocument(string Path, JsonObject Root, IReadOnlyDictionary<string, int> Lines)
{
    /// <summary>Reads a job file in JSON. Comments and a comma after the last element are allowed.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.JobInvalid"/> naming file and line; <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static JobDocument ReadJson(string path)
    {
        byte[] utf8 = FileSystem.ReadBytes(path);
        ReadOnlySpan<byte> json = utf8.AsSpan().StartsWith("\uFEFF"u8) ? utf8.AsSpan(3) : utf8;
        Dictionary<string, int> lines = new(StringComparer.OrdinalIgnoreCase);
        try
        {
            Utf8JsonReader reader = new(json, new JsonReaderOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true });
            LineReader read = new(json.ToArray(), lines);
            reader.Read();
            JsonNode? root = read.Value(ref reader, "");
            if (reader.Read())
            {
                throw new JsonException("There is more after the first value.");
            }

            return root is JsonObject values ? new JobDocument(path, values, lines) : throw Invalid(path, 1, "The file is not an object with keys.");
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException or FormatException)
        {
            int line = exception is JsonException { LineNumber: long number } ? (int)number + 1 : 1;
            throw Invalid(path, line, $"The file is not valid JSON: {exception.Message}", exception);
        }
    }

    /// <summary>The error for a file that cannot be read.</summary>
    /// <param name="path">The file.</param>
    /// <param name="line">The line, from 1.</param>
    /// <param name="problem">The problem, as a sentence.</param>
    /// <param name="cause">The exception behind it.</param>
    /// <returns>An error whose target is the <see cref="JobProblem"/>.</returns>
    public static LoKrException Invalid(string path, int line, string problem, Exception? cause = null) => new(
        ErrorIds.JobInvalid, LoKrErrorKind.InvalidData, string.Create(CultureInfo.InvariantCulture, $"{path}:{line}: {problem}"), "Correct the file.", cause) { Target = new JobProblem(line, "", problem) };

    /// <summary>The line of a key, or of the nearest one that leads to it.</summary>
    /// <param name="key">Keys that lead there, separated by periods.</param>
    public int LineOf(string key)
    {
        ArgumentNullException.ThrowIfNull(key);
        for (string at = key; at.Length > 0; at = at.LastIndexOf('.') is int end and > 0 ? at[..end] : "")
        {
            if (Lines.TryGetValue(at, out int line))
            {
                return line;
            }
        }

        return 1;
    }

    private sealed class LineReader(byte[] json, Dictionary<string, int> lines)
    {
        public JsonNode? Value(ref Utf8JsonReader reader, string path)
        {
            switch (reader.TokenType)
            {
                case JsonTokenType.StartObject:
                    JsonObject values = [];
                    while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
                    {
                        string key = reader.GetString()!;
                        string full = path.Length == 0 ? key : $"{path}.{key}";
                        if (!lines.TryAdd(full, LineAt(reader.TokenStartIndex)))
                        {
                            throw new JsonException($"The key '{full}' is there twice.", full, LineAt(reader.TokenStartIndex) - 1, null);
                        }

                        reader.Read();
                        values[key] = Value(ref reader, full);
                    }

                    return values;
                case JsonTokenType.StartArray:
                    JsonArray list = [];
                    while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
                    {
                        list.Add(Value(ref reader, path));
                    }

                    return list;
                case JsonTokenType.String:
                    return JsonValue.Create(reader.GetString());
                case JsonTokenType.Number:
                    return reader.TryGetInt64(out long whole) ? JsonValue.Create(whole) : JsonValue.Create(reader.GetDouble());
                case JsonTokenType.True or JsonTokenType.False:
                    return JsonValue.Create(reader.GetBoolean());
                default:
                    return null;
            }
        }

        private int LineAt(long position) => json.AsSpan(0, (int)position).Count((byte)'\n') + 1;
    }
}
