using System.Globalization;
using CsvHelper;
using CsvHelper.Configuration;
using LoKr.Core.Errors;

namespace LoKr.Core.Data;

/// <summary>Reads rows from CSV with a header (RFC 4180): quoted fields may hold delimiters, doubled quotes and line breaks.</summary>
internal static class CsvRowReader
{
    // What programs write between fields where the comma is the decimal separator, or where texts are full of both.
    private static readonly string[] s_delimiters = [",", ";", "\t", "|"];

    /// <summary>Reads every record; values are strings.</summary>
    /// <param name="reader">The text.</param>
    /// <param name="name">Name of the file, for messages.</param>
    /// <param name="delimiter">What stands between fields; null for whichever of comma, semicolon, tab and vertical bar every line has.</param>
    /// <param name="reading">Treatment of records that do not fit.</param>
    public static IEnumerable<DataRow> Read(TextReader reader, string name, string? delimiter, DataReading reading)
    {
        string? malformed = null;
        CsvConfiguration configuration = new(CultureInfo.InvariantCulture)
        {
            Delimiter = delimiter ?? s_delimiters[0],
            DetectDelimiter = delimiter is null,
            DetectDelimiterValues = s_delimiters,
            Mode = CsvMode.RFC4180,
            MaxFieldSize = GuardedStream.LongestLine,
            LineBreakInQuotedFieldIsBadData = false,
            // A quote inside an unquoted field (a 5" disk) is text; a quote that does not enclose its whole field is an error.
            BadDataFound = found => malformed ??= found.Field.StartsWith('"') ? found.Field : null,
        };
        using CsvParser parser = new(reader, configuration, leaveOpen: true);
        string[]? header = null;
        int width = 0;
        while (Advance(parser, name))
        {
            string[] record = parser.Record!;
            // RawRow is the last line of the record; its first is as many lines before as its fields have line breaks.
            string origin = string.Create(CultureInfo.InvariantCulture, $"{name}:{parser.RawRow - record.Sum(CountLineBreaks)}");
            bool isMalformed = malformed is not null;
            malformed = null;
            if (header is null && parser.RawRow == 1 && StatedDelimiter(parser.RawRecord) is string stated)
            {
                if (stated != parser.Delimiter)
                {
                    throw Invalid(origin, $"says that '{stated}' stands between fields, where it is '{parser.Delimiter}'", "Remove the line, or write commas, semicolons, tabs or vertical bars between the fields of all lines.");
                }

                continue;
            }

            if (header is null)
            {
                // Spreadsheets write columns at the end that have neither a name nor values.
                width = record.Length;
                header = CheckHeader(isMalformed ? throw Malformed(origin) : record[..Math.Max(1, 1 + Array.FindLastIndex(record, static column => !string.IsNullOrWhiteSpace(column)))], origin);
                if (parser.Delimiter != configuration.Delimiter)
                {
                    reading.AddNote($"{name} has {(parser.Delimiter == "\t" ? "tabs" : $"'{parser.Delimiter}'")} between its fields.");
                }

                continue;
            }

            // The parser skips empty lines; lines of blanks are skipped too.
            if (!isMalformed && record.Length == 1 && string.IsNullOrWhiteSpace(record[0]) && header.Length > 1)
            {
                continue;
            }

            string[] columns = header;
            int most = width;
            if (reading.TryRead(() => isMalformed ? throw Malformed(origin) : ToRow(columns, most, record, origin), out DataRow? row))
            {
                yield return row!;
            }
        }
    }

    // What Excel reads in a first line "sep=;", with quotes around it or without.
    private static string? StatedDelimiter(string line)
    {
        string text = line.TrimEnd('\r', '\n').Trim('"');
        return text.Length == 5 && text.StartsWith("sep=", StringComparison.OrdinalIgnoreCase) ? text[4..] : null;
    }

    private static bool Advance(CsvParser parser, string name)
    {
        try
        {
            return parser.Read();
        }
        catch (MaxFieldSizeException)
        {
            throw Invalid($"{name}:{parser.RawRow}", $"has a field of more than {GuardedStream.LongestLine >> 20} Mi characters", "Close every quote of a quoted field.");
        }
    }

    private static DataRow ToRow(string[] header, int width, string[] record, string origin)
    {
        if (record.Length == width && Array.FindIndex(record, header.Length, static field => field.Length > 0) is int filled and >= 0)
        {
            throw Invalid(origin, $"has a value in the field {filled + 1}, whose column has no name", "Give every column with values a name in the first line.");
        }

        if (record.Length != header.Length && record.Length != width)
        {
            throw Invalid(origin, $"has {record.Length} fields, the header has {header.Length}", "Put fields that hold the delimiter in quotes.");
        }

        Dictionary<string, object?> fields = new(header.Length, StringComparer.Ordinal);
        for (int i = 0; i < header.Length; i++)
        {
            fields.Add(header[i], record[i]);
        }

        return new DataRow(fields, origin);
    }

    private static string[] CheckHeader(string[] record, string origin)
    {
        string[] header = [.. record.Select(column => column.Trim())];
        HashSet<string> seen = new(StringComparer.Ordinal);
        foreach (string column in header)
        {
            string? problem = column.Length == 0 ? "has a column without a name" : seen.Add(column) ? null : $"has the column '{column}' twice";
            if (problem is not null)
            {
                throw new LoKrException(
                    ErrorIds.DataHeaderInvalid, LoKrErrorKind.InvalidData, $"The header {origin} {problem}.", "Give every column its own name in the first line.")
                { Target = origin };
            }
        }

        return header;
    }

    private static int CountLineBreaks(string field)
    {
        int count = 0;
        foreach (ReadOnlySpan<char> _ in field.AsSpan().EnumerateLines())
        {
            count++;
        }

        return Math.Max(count - 1, 0);
    }

    private static LoKrException Malformed(string origin) =>
        Invalid(origin, "has a quote that does not enclose its whole field", "Double every quote inside a quoted field and close the field with one.");

    private static LoKrException Invalid(string origin, string what, string advice) =>
        new(ErrorIds.DataLineInvalid, LoKrErrorKind.InvalidData, $"{origin} {what}.", advice) { Target = origin };
}
