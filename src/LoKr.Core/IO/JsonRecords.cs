using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// Records as JSON files: names in camel case, enumerations by name, numbers that read back to the same bits, absent members left out.
/// Unknown members are ignored, so that files of a later version can be read.
/// </summary>
public static class JsonRecords
{
    private static readonly JsonSerializerOptions s_line = new(JsonSerializerDefaults.Web)
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter() },
    };

    private static readonly JsonSerializerOptions s_file = new(s_line) { WriteIndented = true, NewLine = "\n" };

    private static readonly JsonSerializerOptions s_escaped = new() { WriteIndented = true, NewLine = "\n" };

    private static readonly JsonSerializerOptions s_readable = new(s_escaped) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>JSON in lines, the same on every system, for people too: quotes and letters are not escaped as \u0022.</summary>
    public static string ToLines(JsonNode json)
    {
        ArgumentNullException.ThrowIfNull(json);
        return json.ToJsonString(s_readable);
    }

    /// <summary>JSON in lines, the same on every system, in ASCII alone.</summary>
    internal static string ToEscapedLines(JsonNode json) => json.ToJsonString(s_escaped);

    /// <summary>Writes a record to a file, which appears complete or not at all.</summary>
    /// <exception cref="LoKrException">As for <see cref="AtomicFile.Write"/>.</exception>
    public static void Write<T>(string path, T record) => AtomicFile.WriteText(path, JsonSerializer.Serialize(record, s_file) + "\n");

    /// <summary>A record in one line, without the end of the line.</summary>
    public static string ToLine<T>(T record) => JsonSerializer.Serialize(record, s_line);

    /// <summary>Reads a record from a file.</summary>
    /// <param name="path">The file.</param>
    /// <param name="errors">Ids and advice of the errors.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>; <see cref="JsonErrors.Invalid"/> naming file and key for anything that is not such a record.
    /// </exception>
    public static T Read<T>(string path, JsonErrors errors) => Convert<T>(JsonFields.Read(path, errors), errors);

    /// <summary>Reads a record from text.</summary>
    /// <inheritdoc cref="Read{T}"/>
    /// <param name="json">The text.</param>
    /// <param name="source">File and line or other origin, for messages.</param>
    /// <param name="errors">Ids and advice of the errors.</param>
    public static T Parse<T>(string json, string source, JsonErrors errors) => Convert<T>(JsonFields.Parse(json, source, errors), errors);

    /// <summary>
    /// Adds a record to a file of lines, which is created where there is none. A last line that a killed process or a full disk left half is cut off
    /// first.
    /// </summary>
    /// <exception cref="IOException">The file cannot be written.</exception>
    /// <exception cref="UnauthorizedAccessException">This user may not write it.</exception>
    public static void Append<T>(string path, T record)
    {
        using FileStream stream = new(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 1);
        long end = WholeLines(stream);
        stream.SetLength(end);
        stream.Position = end;
        stream.Write(Encoding.UTF8.GetBytes(ToLine(record) + "\n"));
        stream.Flush(flushToDisk: true);
    }

    /// <summary>Reads the records of a file of lines; a last line that is not finished is left out. Without the file there are none.</summary>
    /// <inheritdoc cref="Read{T}"/>
    public static IReadOnlyList<T> ReadLines<T>(string path, JsonErrors errors)
    {
        if (!File.Exists(path))
        {
            return [];
        }

        string[] lines = FileSystem.ReadText(path).Split('\n');
        return [.. lines.SkipLast(1).Index().Where(static line => line.Item.Length > 0).Select(line => Parse<T>(line.Item, FormattableString.Invariant($"{path}:{line.Index + 1}"), errors))];
    }

    // Where the last whole line ends.
    private static long WholeLines(FileStream stream)
    {
        for (long end = stream.Length; end > 0; end--)
        {
            stream.Position = end - 1;
            if (stream.ReadByte() == '\n')
            {
                return end;
            }
        }

        return 0;
    }

    private static T Convert<T>(JsonFields fields, JsonErrors errors)
    {
        ArgumentNullException.ThrowIfNull(errors);
        try
        {
            return fields.Element.Deserialize<T>(s_line)!;
        }
        catch (Exception exception) when (exception is JsonException or NotSupportedException or InvalidOperationException or ArgumentException)
        {
            string at = exception is JsonException { Path.Length: > 2 } json ? $" at '{json.Path[2..]}'" : "";
            throw new LoKrException(errors.Invalid, LoKrErrorKind.InvalidData, $"'{fields.Source}' is not valid{at}: {exception.Message}", errors.Advice, exception)
            { Target = fields.Source };
        }
    }
}
