using System.Text.Json;

namespace LoKr.Core.IO;

/// <summary>
/// Finds strings that are valid JSON but not valid text: an escaped surrogate without its partner (<c>"\ud83d"</c>), as data cut in the middle of an
/// emoji holds. System.Text.Json refuses them only when they are read, by an exception without place.
/// </summary>
internal static class JsonUnicode
{
    /// <summary>Finds the first key or string that is not valid Unicode.</summary>
    /// <param name="utf8">JSON text; where it is malformed, its parser is the one to say so.</param>
    /// <returns>A description with line and key, as the rest of a sentence, or null.</returns>
    public static string? FindInvalid(ReadOnlySpan<byte> utf8)
    {
        if (!HasSurrogate(utf8))
        {
            return null;
        }

        Utf8JsonReader reader = new(utf8);
        Dictionary<int, string> keys = [];
        try
        {
            while (reader.Read())
            {
                if (reader.TokenType is JsonTokenType.StartObject or JsonTokenType.StartArray)
                {
                    keys.Remove(reader.CurrentDepth + 1);
                }
                else if (reader.TokenType is JsonTokenType.PropertyName or JsonTokenType.String)
                {
                    bool isKey = reader.TokenType == JsonTokenType.PropertyName;
                    if (isKey)
                    {
                        keys.Remove(reader.CurrentDepth);
                    }

                    if (!TryGet(ref reader, out string text))
                    {
                        return Describe(utf8[..(int)reader.TokenStartIndex].Count((byte)'\n') + 1, Path(keys, reader.CurrentDepth), isKey);
                    }

                    if (isKey)
                    {
                        keys[reader.CurrentDepth] = text;
                    }
                }
            }
        }
        catch (JsonException)
        {
            // Malformed text is not this method's to report.
            return null;
        }

        return null;
    }

    // Most files have no escape of a surrogate at all, and need no second reading.
    private static bool HasSurrogate(ReadOnlySpan<byte> utf8)
    {
        for (int at = utf8.IndexOf("\\u"u8); at >= 0;)
        {
            utf8 = utf8[(at + 2)..];
            if (utf8.Length >= 2 && (utf8[0] | 0x20) == 'd' && utf8[1] >= '8')
            {
                return true;
            }

            at = utf8.IndexOf("\\u"u8);
        }

        return false;
    }

    private static bool TryGet(ref Utf8JsonReader reader, out string text)
    {
        try
        {
            text = reader.GetString()!;
            return true;
        }
        catch (InvalidOperationException)
        {
            text = "";
            return false;
        }
    }

    private static string Path(Dictionary<int, string> keys, int depth) =>
        string.Join('.', keys.Where(pair => pair.Key <= depth).OrderBy(static pair => pair.Key).Select(static pair => pair.Value));

    private static string Describe(int line, string path, bool isKey) => string.Create(System.Globalization.CultureInfo.InvariantCulture,
        $"line {line} has a {(isKey ? "key" : "text")}{(path.Length == 0 ? "" : $" in '{path}'")} that is not valid Unicode: an escaped surrogate without its partner");
}
