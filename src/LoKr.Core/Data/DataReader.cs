using System.Globalization;
using System.Text;
using System.Text.Json;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Data;

/// <summary>
/// Reads rows from JSON Lines (<c>.jsonl</c>, <c>.ndjson</c>), a JSON array (<c>.json</c>), CSV (<c>.csv</c>, RFC 4180 with a header)
/// or tab-separated values (<c>.tsv</c>). Text is UTF-8, with or without a byte order mark; UTF-16 needs its mark.
/// </summary>
public static class DataReader
{
    /// <summary>Reads a whole file. Blank lines are skipped; every other line must be a row.</summary>
    /// <param name="path">The file; its extension determines the format.</param>
    /// <returns>At least one row, in the order of the file.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.DataFormatUnknown"/>, <see cref="ErrorIds.DataEmpty"/>,
    /// <see cref="ErrorIds.DataLineInvalid"/> (naming file and line), <see cref="ErrorIds.DataHeaderInvalid"/> or <see cref="ErrorIds.DataEncodingInvalid"/>.
    /// </exception>
    public static IReadOnlyList<DataRow> ReadFile(string path) => ReadFile(path, onRows: null, CancellationToken.None);

    /// <inheritdoc cref="ReadFile(string)"/>
    /// <summary>Reads a file as the other overload does, and reports how far it is.</summary>
    /// <param name="path">The file; its extension determines the format.</param>
    /// <param name="onRows">Called now and then with the number of rows that are read, on this thread.</param>
    /// <param name="cancellationToken">Checked before every row.</param>
    public static IReadOnlyList<DataRow> ReadFile(string path, Action<int>? onRows, CancellationToken cancellationToken)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        Func<TextReader, string, IEnumerable<DataRow>> read = Path.GetExtension(path).ToLowerInvariant() switch
        {
            ".jsonl" or ".ndjson" => JsonRowReader.ReadLines,
            ".json" => JsonRowReader.ReadArray,
            ".csv" => (reader, name) => CsvRowReader.Read(reader, name, ","),
            ".tsv" => (reader, name) => CsvRowReader.Read(reader, name, "\t"),
            string extension => throw new LoKrException(
                ErrorIds.DataFormatUnknown,
                LoKrErrorKind.NotSupported,
                $"The extension '{extension}' of {path} is not a data format.",
                "Use .jsonl, .ndjson, .json, .csv or .tsv.") { Target = path },
        };
        if (!File.Exists(path))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"The data file {path} does not exist.", "Check the path.") { Target = path };
        }

        List<DataRow> rows = Decode(path, reader => Collect(read(reader, Path.GetFileName(path)), onRows, cancellationToken));
        return rows.Count > 0
            ? rows
            : throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, $"{path} has no rows.", "Give it at least one.") { Target = path };
    }

    private static List<DataRow> Collect(IEnumerable<DataRow> source, Action<int>? onRows, CancellationToken cancellationToken)
    {
        const int Between = 256;
        List<DataRow> rows = [];
        foreach (DataRow row in source)
        {
            cancellationToken.ThrowIfCancellationRequested();
            rows.Add(row);
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
        return Decode(path, static reader => reader.ReadToEnd());
    }

    private static T Decode<T>(string path, Func<TextReader, T> read)
    {
        try
        {
            using FileStream file = FileSystem.OpenRead(path);
            using StreamReader reader = new(file, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true));
            return read(reader);
        }
        catch (DecoderFallbackException e)
        {
            throw new LoKrException(
                ErrorIds.DataEncodingInvalid, LoKrErrorKind.InvalidData, $"{path} is not UTF-8.", "Save it as UTF-8.", e) { Target = path };
        }
    }
}

/// <summary>One row of data.</summary>
/// <param name="Fields">Values by name: string, long, double, bool, null, or a <see cref="JsonElement"/> for nested JSON.</param>
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
        Require(row, column, expected) is string text ? text : throw Wrong(row, column, "text");

    /// <summary>Returns the value of a column of text, numbers or truth values as text.</summary>
    /// <param name="row">The row.</param>
    /// <param name="column">Name of the column.</param>
    /// <param name="expected">The required columns, for messages.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static string Label(DataRow row, string column, string expected) =>
        Require(row, column, expected) switch
        {
            string text when text.Length > 0 => text,
            bool flag => flag ? "true" : "false",
            Enum value => value.ToString(),
            IFormattable number and (sbyte or byte or short or ushort or int or uint or long or ulong or float or double or decimal) =>
                number.ToString(null, CultureInfo.InvariantCulture),
            _ => throw Wrong(row, column, "a name or a number"),
        };

    private static object? Require(DataRow row, string column, string expected)
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

    private static LoKrException Wrong(DataRow row, string column, string wanted)
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
