using System.Text;

namespace LoKr.Core.Training.Data;

/// <summary>
/// Reads rows from JSON Lines (<c>.jsonl</c>, <c>.ndjson</c>), a JSON array (<c>.json</c>), CSV (<c>.csv</c>, RFC 4180 with a header)
/// or tab-separated values (<c>.tsv</c>). Text is UTF-8, with or without a byte order mark; UTF-16 needs its mark.
/// </summary>
public static class DataReader
{
    /// <summary>Reads a whole file. Blank lines are skipped; every other line has to be a row.</summary>
    /// <param name="path">The file; its extension says the format.</param>
    /// <returns>At least one row, in the order of the file.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.PathNotFound"/>, <see cref="ErrorIds.DataFormatUnknown"/>, <see cref="ErrorIds.DataEmpty"/>,
    /// <see cref="ErrorIds.DataLineInvalid"/> (naming file and line), <see cref="ErrorIds.DataHeaderInvalid"/> or <see cref="ErrorIds.DataEncodingInvalid"/>.
    /// </exception>
    public static IReadOnlyList<DataRow> ReadFile(string path)
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

        List<DataRow> rows;
        try
        {
            using StreamReader reader = new(path, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true));
            rows = [.. read(reader, Path.GetFileName(path))];
        }
        catch (DecoderFallbackException e)
        {
            throw new LoKrException(
                ErrorIds.DataEncodingInvalid, LoKrErrorKind.InvalidData, $"{path} is not UTF-8.", "Save it as UTF-8.", e) { Target = path };
        }

        return rows.Count > 0
            ? rows
            : throw new LoKrException(ErrorIds.DataEmpty, LoKrErrorKind.InvalidData, $"{path} has no rows.", "Give it at least one.") { Target = path };
    }
}
