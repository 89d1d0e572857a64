using System.Collections;
using System.Globalization;
using System.Text;
using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Data;

/// <summary>
/// Reads rows from JSON Lines (<c>.jsonl</c>, <c>.ndjson</c>), a JSON array (<c>.json</c>), CSV (<c>.csv</c>, RFC 4180 with a header), tab-separated
/// values (<c>.tsv</c>), words with tags (<c>.conll</c>, <c>.bio</c>, <c>.iob</c>) or Parquet (<c>.parquet</c>). All but Parquet may be compressed with gzip (<c>.jsonl.gz</c>). Text is UTF-8, with or without a
/// byte order mark; UTF-16 needs its mark.
/// </summary>
public static class DataReader
{
    /// <summary>Endings of the names of data files.</summary>
    public static IReadOnlyList<string> Extensions { get; } = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".conll", ".bio", ".iob", ".parquet"];

    /// <summary>Reads a whole file. Blank lines are skipped; every other line must be a row.</summary>
    /// <param name="path">The file; its extension determines the format.</param>
    /// <returns>At least one row, in the order of the file.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.DataFormatUnknown"/>, <see cref="ErrorIds.DataEmpty"/>, <see cref="ErrorIds.FileNotReadable"/>,
    /// <see cref="ErrorIds.DataLineInvalid"/> (naming file and line), <see cref="ErrorIds.DataHeaderInvalid"/> or <see cref="ErrorIds.DataEncodingInvalid"/>.
    /// </exception>
    public static IReadOnlyList<DataRow> ReadFile(string path) => ReadFile(path, new DataReading(), onRows: null, CancellationToken.None);

    /// <summary>Reads a file as the other overload does, with columns under other names, without rows that do not fit, and reports how far it is.</summary>
    /// <param name="path">The file; its extension determines the format.</param>
    /// <param name="reading">Names of columns and treatment of rows that do not fit; takes note of what is worth saying.</param>
    /// <param name="onRows">Called now and then with the number of rows that are read, on this thread.</param>
    /// <param name="cancellationToken">Checked before every row.</param>
    /// <returns>The rows, in the order of the file; none only where all were skipped.</returns>
    /// <inheritdoc cref="ReadFile(string)" path="/exception"/>
    public static IReadOnlyList<DataRow> ReadFile(string path, DataReading reading, Action<int>? onRows, CancellationToken cancellationToken)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(reading);
        string name = Path.GetFileName(path);
        bool isCompressed = Path.GetExtension(path).Equals(".gz", StringComparison.OrdinalIgnoreCase);
        string extension = Path.GetExtension(isCompressed ? Path.GetFileNameWithoutExtension(path) : path).ToLowerInvariant();
        Func<Stream, IEnumerable<DataRow>> read = extension switch
        {
            ".jsonl" or ".ndjson" => file => JsonRowReader.ReadLines(Decoder(new GuardedStream(file, name, DataUnit.Line)), name, reading),
            ".json" => file => JsonRowReader.ReadArray(Decoder(new GuardedStream(file, name, DataUnit.Document)), name, reading),
            ".csv" => file => CsvRowReader.Read(Decoder(new GuardedStream(file, name, DataUnit.Line)), name, delimiter: null, reading),
            ".tsv" => file => CsvRowReader.Read(Decoder(new GuardedStream(file, name, DataUnit.Line)), name, "\t", reading),
            ".conll" or ".bio" or ".iob" => file => ConllRowReader.Read(Decoder(new GuardedStream(file, name, DataUnit.Line)), name, reading),
            ".parquet" when !isCompressed => file => ParquetRowReader.Read(file, name, cancellationToken),
            _ => throw new LoKrException(
                ErrorIds.DataFormatUnknown,
                LoKrErrorKind.NotSupported,
                $"The extension '{Path.GetExtension(path)}' of {path} is not a data format.",
                $"Use {string.Join(", ", Extensions)}; all but .parquet may be compressed, with .gz behind.") { Target = path },
        };
        if (!File.Exists(path))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"The data file {path} does not exist.", "Check the path.") { Target = path };
        }

        int skipped = reading.SkippedCount;
        List<DataRow> rows = Open(path, isCompressed, file => Collect(read(file), reading, onRows, cancellationToken));
        return rows.Count > 0 || reading.SkippedCount > skipped
            ? rows
            : throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, $"{path} has no rows.", "Give it at least one.") { Target = path };
    }

    private static List<DataRow> Collect(IEnumerable<DataRow> source, DataReading reading, Action<int>? onRows, CancellationToken cancellationToken)
    {
        const int Between = 256;
        List<DataRow> rows = [];
        foreach (DataRow row in source)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (reading.Rename(row) is not DataRow renamed)
            {
                continue;
            }

            rows.Add(renamed);
            if (rows.Count % Between == 0)
            {
                onRows?.Invoke(rows.Count);
            }
        }

        return rows;
    }

    /// <summary>Reads a whole text file: UTF-8, with or without a byte order mark; UTF-16 needs its mark.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.FileNotReadable"/> or <see cref="ErrorIds.DataEncodingInvalid"/>.</exception>
    public static string ReadText(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return Open(path, isCompressed: false, static file => Decoder(file).ReadToEnd());
    }

    private static StreamReader Decoder(Stream file) => new(file, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true), leaveOpen: true);

    private static T Open<T>(string path, bool isCompressed, Func<Stream, T> read)
    {
        try
        {
            using FileStream file = FileSystem.OpenRead(path);
            using Stream content = isCompressed ? new GzipText(file) : file;
            return read(content);
        }
        catch (DecoderFallbackException e)
        {
            throw new LoKrException(
                ErrorIds.DataEncodingInvalid, LoKrErrorKind.InvalidData, $"{path} is not UTF-8.", "Save it as UTF-8.", e) { Target = path };
        }
        catch (InvalidDataException e) when (isCompressed)
        {
            throw new LoKrException(
                ErrorIds.FileNotReadable, LoKrErrorKind.InvalidData, $"{path} is not a gzip file, or it is damaged: {e.Message}", "Copy it again, or give the file that was compressed.", e)
            { Target = path };
        }
    }
}

/// <summary>One row of data.</summary>
/// <param name="Fields">Values by name: string, long, double, bool, null, string[], or a <see cref="JsonElement"/> for nested JSON.</param>
/// <param name="Origin">File and line for messages, for example <c>tickets.jsonl:12</c>.</param>
public sealed record DataRow(IReadOnlyDictionary<string, object?> Fields, string Origin);

/// <summary>Reads values from rows, with errors that name the row and its columns.</summary>
public static class RowFields
{
    /// <summary>Whether a row has the column. The exact name overrides one that differs in case.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    public static bool Has(DataRow row, string column)
    {
        ArgumentNullException.ThrowIfNull(row);
        return TryGet(row, column, out _);
    }

    /// <summary>Whether a row has the column without a value.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    public static bool IsNull(DataRow row, string column)
    {
        ArgumentNullException.ThrowIfNull(row);
        return TryGet(row, column, out object? value) && value is null;
    }

    /// <summary>Returns the text of a column, which is not empty and has more than spaces.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    /// <param name="expected">The required columns, for messages.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static string Text(DataRow row, string column, string expected) =>
        AnyText(row, column, expected) is string text && !string.IsNullOrWhiteSpace(text) ? text : throw Wrong(row, column, "text that is not empty");

    /// <summary>Returns the text of a column, which may be empty.</summary>
    /// <inheritdoc cref="Text"/>
    public static string AnyText(DataRow row, string column, string expected) =>
        Value(row, column, expected) is string text ? text : throw Wrong(row, column, "text");

    /// <summary>Returns the value of a column of text, numbers or truth values as text.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    /// <param name="expected">The required columns, for messages.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static string Label(DataRow row, string column, string expected) =>
        Value(row, column, expected) switch
        {
            string text when text.Length > 0 => text,
            bool flag => flag ? "true" : "false",
            Enum value => value.ToString(),
            IFormattable number and (sbyte or byte or short or ushort or int or uint or long or ulong or float or double or decimal) =>
                number.ToString(null, CultureInfo.InvariantCulture),
            _ => throw Wrong(row, column, "a name or a number"),
        };

    /// <summary>Whether a row has a list in the column.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    public static bool HasList(DataRow row, string column)
    {
        ArgumentNullException.ThrowIfNull(row);
        return TryGet(row, column, out object? value) && value is JsonElement { ValueKind: JsonValueKind.Array } or (IEnumerable and not string);
    }

    /// <summary>Returns the values of a column that has a list: texts, numbers (double) and truth values; null where it has one value.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    /// <param name="expected">The required columns, for messages.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/>; <see cref="ErrorIds.DataValueInvalid"/> for a list of other things.</exception>
    public static IReadOnlyList<object>? List(DataRow row, string column, string expected) => Value(row, column, expected) switch
    {
        JsonElement { ValueKind: JsonValueKind.Array } list => [.. list.EnumerateArray().Select(item => item.ValueKind switch
        {
            JsonValueKind.String => (object)item.GetString()!,
            JsonValueKind.Number => item.GetDouble(),
            JsonValueKind.True or JsonValueKind.False => item.GetBoolean(),
            _ => throw Wrong(row, column, "a list of texts or numbers"),
        })],
        IEnumerable list and not string => [.. list.Cast<object?>().Select(item => item switch
        {
            string or bool => item,
            IConvertible number => number.ToDouble(CultureInfo.InvariantCulture),
            _ => throw Wrong(row, column, "a list of texts or numbers"),
        })],
        _ => null,
    };

    /// <summary>Returns the labels that a column names: one, those of a list of texts, or none for a list of numbers.</summary>
    /// <inheritdoc cref="List"/>
    public static IReadOnlyList<string> Labels(DataRow row, string column, string expected) =>
        List(row, column, expected) is { } list ? [.. list.OfType<string>()] : [Label(row, column, expected)];

    /// <summary>Returns the labels that a row names: those of its label, and the tags of its words; none where it has neither.</summary>
    /// <param name="row">The row.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/> for labels or tags of another kind.</exception>
    public static IReadOnlyList<string> LabelNames(DataRow row)
    {
        const string Column = "label";
        return
        [
            .. Has(row, Column) && !IsNull(row, Column) ? Labels(row, Column, Column) : [],
            .. TaggedWords.HasTags(row) ? TaggedWords.Names(row) : [],
        ];
    }

    /// <summary>Returns a number, or a text that is one.</summary>
    /// <inheritdoc cref="List"/>
    public static double Number(DataRow row, string column, string expected) =>
        double.TryParse(Label(row, column, expected), NumberStyles.Float, CultureInfo.InvariantCulture, out double number) && double.IsFinite(number)
            ? number
            : throw Wrong(row, column, "a number");

    /// <summary>Returns a number, or a text that is one; null for anything else, and without the column.</summary>
    internal static double? FindNumber(DataRow row, string column) => TryGet(row, column, out object? value) && value is string or IFormattable
        && double.TryParse(Convert.ToString(value, CultureInfo.InvariantCulture), NumberStyles.Float, CultureInfo.InvariantCulture, out double number) ? number : null;

    /// <summary>Returns the value of a column, whatever it is.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    /// <param name="expected">The required columns, for messages.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/>.</exception>
    public static object? Value(DataRow row, string column, string expected)
    {
        ArgumentNullException.ThrowIfNull(row);
        if (TryGet(row, column, out object? value))
        {
            return value;
        }

        string found = row.Fields.Count == 0 ? "none" : string.Join(", ", row.Fields.Keys);
        throw new LoKrException(
            ErrorIds.DataColumnMissing,
            LoKrErrorKind.InvalidData,
            $"{row.Origin} has no column '{column}'; its columns are: {found}.",
            $"The required columns are {expected}.") { Target = row.Origin };
    }

    /// <summary>Returns the value of a column, or of a member of an object in one: the names on the way to it with points between.</summary>
    /// <inheritdoc cref="Value"/>
    internal static object? Nested(DataRow row, string column, string expected)
    {
        for (int point = column.IndexOf('.'); point > 0 && !Has(row, column); point = column.IndexOf('.', point + 1))
        {
            if (TryGet(row, column[..point], out object? value) && TryMember(value, column[(point + 1)..], out object? member))
            {
                return member;
            }
        }

        return Value(row, column, expected);
    }

    private static bool TryMember(object? value, string path, out object? member)
    {
        string[] names = path.Split('.');
        member = value;
        foreach (string name in names)
        {
            switch (member)
            {
                case JsonElement { ValueKind: JsonValueKind.Object } json when json.TryGetProperty(name, out JsonElement property):
                    member = property;
                    break;
                case IReadOnlyDictionary<string, object?> map when map.TryGetValue(name, out object? found):
                    member = found;
                    break;
                default:
                    return false;
            }
        }

        member = member is JsonElement element ? JsonRowReader.Value(element) : member;
        return true;
    }

    private static bool TryGet(DataRow row, string column, out object? value)
    {
        if (row.Fields.TryGetValue(column, out value))
        {
            return true;
        }

        foreach ((string name, object? candidate) in row.Fields)
        {
            if (name.Equals(column, StringComparison.OrdinalIgnoreCase))
            {
                value = candidate;
                return true;
            }
        }

        return false;
    }

    /// <summary>The error of a value of another kind.</summary>
    internal static LoKrException Wrong(DataRow row, string column, string wanted)
    {
        _ = TryGet(row, column, out object? value);
        string found = value switch
        {
            null => "null",
            "" => "empty",
            string text when string.IsNullOrWhiteSpace(text) => "blank",
            JsonElement element => "a JSON " + element.ValueKind.ToString().ToLowerInvariant(),
            _ => $"a {value.GetType().Name}",
        };
        return new LoKrException(
            ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, $"The {column} of {row.Origin} is {found}.", $"It must be {wanted}.") { Target = row.Origin };
    }
}
