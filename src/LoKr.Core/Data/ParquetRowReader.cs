using System.Buffers.Binary;
using System.Collections;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using Parquet.Schema;
using Parquet.Serialization;

namespace LoKr.Core.Data;

/// <summary>Reads rows from Parquet. Lists and structures become JSON, times text (ISO 8601), bytes text (UTF-8).</summary>
/// <remarks>Format: Apache Parquet; the footer is Thrift's compact protocol between the data and a length of four bytes.</remarks>
internal static class ParquetRowReader
{
    private const int TailLength = 8;

    /// <summary>Reads every row.</summary>
    /// <param name="file">The file; must be seekable.</param>
    /// <param name="name">Name of the file, for messages.</param>
    /// <param name="cancellationToken">Stops reading.</param>
    public static IEnumerable<DataRow> Read(Stream file, string name, CancellationToken cancellationToken)
    {
        // All row groups in one call: the library reads the whole footer again in each, which grows with their number.
        (ParquetSchema schema, IList<Dictionary<string, object>> rows) = Guard(name, () =>
        {
            CheckFooter(file);
            file.Position = 0;
            var result = ParquetSerializer.DeserializeUntypedAsync(file, cancellationToken: cancellationToken).GetAwaiter().GetResult();
            return (result.Schema, result.Data);
        });
        foreach ((int number, Dictionary<string, object> row) in rows.Index())
        {
            // The library leaves out what is null.
            Dictionary<string, object?> fields = new(StringComparer.Ordinal);
            foreach (Field column in schema.Fields)
            {
                fields[column.Name] = Value(row.GetValueOrDefault(column.Name));
            }

            yield return new DataRow(fields, string.Create(CultureInfo.InvariantCulture, $"{name}[{number}]"));
        }
    }

    private static object? Value(object? value) => value switch
    {
        null or string or bool or long or double or decimal => value,
        sbyte or byte or short or ushort or int or uint => Convert.ToInt64(value, CultureInfo.InvariantCulture),
        ulong number => number <= long.MaxValue ? (long)number : (double)number,
        float number => (double)number,
        _ => Json(value) switch
        {
            JsonValue text when text.TryGetValue(out string? written) => written,
            JsonNode node => node.Deserialize<JsonElement>(),
            null => null,
        },
    };

    private static JsonNode? Json(object? value) => value switch
    {
        null => null,
        string text => JsonValue.Create(text),
        ReadOnlyMemory<char> text => JsonValue.Create(text.ToString()),
        byte[] bytes => JsonValue.Create(Encoding.UTF8.GetString(bytes)),
        ReadOnlyMemory<byte> bytes => JsonValue.Create(Encoding.UTF8.GetString(bytes.Span)),
        bool flag => JsonValue.Create(flag),
        float or double or decimal => JsonSerializer.SerializeToNode(value),
        sbyte or byte or short or ushort or int or uint or long or ulong => JsonSerializer.SerializeToNode(value),
        IDictionary map => JsonOf(map),
        IEnumerable list => new JsonArray([.. list.Cast<object?>().Select(Json)]),
        DateTime time => JsonValue.Create(time.ToString("O", CultureInfo.InvariantCulture)),
        IFormattable other => JsonValue.Create(other.ToString(null, CultureInfo.InvariantCulture)),
        _ => JsonValue.Create(value.ToString()),
    };

    private static JsonObject JsonOf(IDictionary map)
    {
        JsonObject json = [];
        foreach (DictionaryEntry entry in map)
        {
            json[Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!] = Json(entry.Value);
        }

        return json;
    }

    // The library finds damage by running into it.
    private static T Guard<T>(string name, Func<T> read)
    {
        try
        {
            return read();
        }
        catch (Exception exception) when (exception is not (LoKrException or OperationCanceledException or OutOfMemoryException))
        {
            throw new LoKrException(ErrorIds.FileNotReadable, LoKrErrorKind.InvalidData,
                $"{name} is not a Parquet file, or it is damaged: {exception.Message}", "Write it again, or use .jsonl.", exception) { Target = name };
        }
    }

    private static void CheckFooter(Stream file)
    {
        if (file.Length <= TailLength)
        {
            throw new InvalidDataException("it is too short");
        }

        byte[] tail = new byte[TailLength];
        file.Position = file.Length - TailLength;
        file.ReadExactly(tail);
        int length = BinaryPrimitives.ReadInt32LittleEndian(tail);
        if (!tail.AsSpan(4).SequenceEqual("PAR1"u8) || length <= 0 || length > file.Length - TailLength)
        {
            throw new InvalidDataException("it does not end as one");
        }

        byte[] footer = new byte[length];
        file.Position = file.Length - TailLength - length;
        file.ReadExactly(footer);
        ParquetFooter.Check(footer);
    }
}
