using System.Text;
using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Data;

/// <summary>Reads rows from JSON objects, one per line or in one array.</summary>
internal static class JsonRowReader
{
    private static readonly JsonDocumentOptions s_options = new() { AllowDuplicateProperties = false };

    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Reads one object per line.</summary>
    public static IEnumerable<DataRow> ReadLines(TextReader reader, string name, DataReading reading)
    {
        int number = 0;
        while (reader.ReadLine() is string line)
        {
            number++;
            if (string.IsNullOrWhiteSpace(line))
            {
                continue;
            }

            string origin = $"{name}:{number}";
            if (reading.TryRead(() => ParseLine(line, origin), out DataRow? row))
            {
                yield return row!;
            }
        }
    }

    /// <summary>Reads one array of objects.</summary>
    public static IEnumerable<DataRow> ReadArray(TextReader reader, string name, DataReading reading)
    {
        string text = reader.ReadToEnd();
        if (string.IsNullOrWhiteSpace(text))
        {
            yield break;
        }

        using JsonDocument document = ParseDocument(text, name);
        if (document.RootElement.ValueKind != JsonValueKind.Array)
        {
            throw Invalid(name, $"holds one {Kind(document.RootElement)}, not an array of objects", "For one object per line, name the file .jsonl.");
        }

        int index = 0;
        foreach (JsonElement element in document.RootElement.EnumerateArray())
        {
            string origin = $"{name}[{index++}]";
            if (reading.TryRead(() => ToRow(element, origin), out DataRow? row))
            {
                yield return row!;
            }
        }
    }

    private static DataRow ParseLine(string line, string origin)
    {
        try
        {
            using JsonDocument document = Parse(line);
            return ToRow(document.RootElement, origin);
        }
        catch (JsonException e)
        {
            throw Invalid(origin, $"is not JSON ({e.Message})", "Every line must be one JSON object.", e);
        }
    }

    private static JsonDocument ParseDocument(string text, string name)
    {
        try
        {
            return Parse(text);
        }
        catch (JsonException e)
        {
            throw Invalid(e.LineNumber is null ? name : $"{name}:{e.LineNumber + 1}", $"is not JSON ({e.Message})", "A .json file must be one array of objects; for one object per line, name it .jsonl.", e);
        }
    }

    // A lone surrogate in UTF-16 text cannot be read at all, and an escaped one not as text.
    private static JsonDocument Parse(string text)
    {
        try
        {
            byte[] utf8 = s_strict.GetBytes(text);
            return JsonUnicode.FindInvalid(utf8) is string problem ? throw new JsonException(problem) : JsonDocument.Parse(utf8, s_options);
        }
        catch (EncoderFallbackException exception)
        {
            throw new JsonException("the text is not valid Unicode", exception);
        }
    }

    private static DataRow ToRow(JsonElement element, string origin)
    {
        if (element.ValueKind != JsonValueKind.Object)
        {
            throw Invalid(origin, $"is a JSON {Kind(element)}, not an object", "Every row must be an object such as {\"text\": \"…\", \"label\": \"…\"}.");
        }

        Dictionary<string, object?> fields = new(StringComparer.Ordinal);
        foreach (JsonProperty property in element.EnumerateObject())
        {
            fields.Add(property.Name, Value(property.Value));
        }

        return new DataRow(fields, origin);
    }

    /// <summary>A value as a row has it.</summary>
    public static object? Value(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.String => element.GetString(),
        JsonValueKind.Number => element.TryGetInt64(out long number) ? (object)number : element.GetDouble(),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        JsonValueKind.Null => null,
        _ => element.Clone(),
    };

    private static string Kind(JsonElement element) => element.ValueKind.ToString().ToLowerInvariant();

    private static LoKrException Invalid(string origin, string what, string advice, Exception? inner = null) =>
        new(ErrorIds.DataLineInvalid, LoKrErrorKind.InvalidData, $"{origin} {what}.", advice, inner) { Target = origin };
}
