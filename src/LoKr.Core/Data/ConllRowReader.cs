using LoKr.Core.Errors;
using LoKr.Core.Metrics;

namespace LoKr.Core.Data;

/// <summary>
/// Reads rows from files as the shared tasks of CoNLL have them: a word a line, its columns separated by tabs or else by spaces, the word first and
/// its tag last, an empty line behind each sentence. Lines that begin with <c>-DOCSTART-</c>, and comments before a sentence (<c># id …</c>), are skipped.
/// </summary>
internal static class ConllRowReader
{
    /// <summary>Reads a row for each sentence, with the columns <c>tokens</c> and, where lines have more than the word, <c>ner_tags</c>.</summary>
    /// <param name="reader">The text.</param>
    /// <param name="name">Name of the file, for messages.</param>
    /// <param name="reading">Treatment of sentences that do not fit.</param>
    public static IEnumerable<DataRow> Read(TextReader reader, string name, DataReading reading)
    {
        List<(int Line, string[] Fields)> sentence = [];
        long length = 0;
        int number = 0;
        bool isMore = true;
        while (isMore)
        {
            string? line = reader.ReadLine();
            number++;
            isMore = line is not null;
            string[] fields = string.IsNullOrWhiteSpace(line) ? [] : Split(line);
            if (fields.Length > 0 && !(sentence.Count == 0 && IsComment(fields)) && fields[0] is not ['-', .. "DOCSTART", '-'])
            {
                sentence.Add((number, fields));
                length += line!.Length + 1;
                CheckLength(length, name, sentence[0].Line);
                continue;
            }

            (int Line, string[] Fields)[] words = [.. sentence];
            if (fields.Length == 0 && words.Length > 0)
            {
                sentence.Clear();
                length = 0;
                if (reading.TryRead(() => ToRow(words, name), out DataRow? row))
                {
                    yield return row!;
                }
            }
        }
    }

    // A sentence is a row, as a line of other files is.
    private static void CheckLength(long length, string name, int firstLine)
    {
        if (length > GuardedStream.LongestLine)
        {
            string at = FormattableString.Invariant($"{name}:{firstLine}");
            throw new LoKrException(ErrorIds.DataLineInvalid, LoKrErrorKind.InvalidData,
                $"{at} begins a sentence of more than {GuardedStream.LongestLine >> 20} Mi characters.", "Leave an empty line behind each sentence.") { Target = at };
        }
    }

    private static string[] Split(string line) => line.Contains('\t', StringComparison.Ordinal)
        ? [.. line.Split('\t').Select(static field => field.Trim())]
        : line.Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    // A word that is a number sign has a tag.
    private static bool IsComment(string[] fields) => fields[0].StartsWith('#') && fields.Length > 1 && !EntityTags.IsTag(fields[^1]);

    private static DataRow ToRow((int Line, string[] Fields)[] words, string name)
    {
        string origin = FormattableString.Invariant($"{name}:{words[0].Line}");
        bool hasTags = words[0].Fields.Length > 1;
        foreach ((int line, string[] fields) in words)
        {
            if (fields.Length > 1 != hasTags || fields[0].Length == 0 || fields[^1].Length == 0)
            {
                string at = FormattableString.Invariant($"{name}:{line}");
                throw new LoKrException(ErrorIds.DataLineInvalid, LoKrErrorKind.InvalidData,
                    $"{at} has {(fields.Length > 1 ? hasTags ? "an empty column" : "a tag, which the first word of its sentence lacks" : "no tag")}.",
                    "Write the word first and its tag last, in columns that tabs or spaces separate.") { Target = at };
            }
        }

        Dictionary<string, object?> columns = new(StringComparer.Ordinal) { [TaggedWords.WordColumn] = words.Select(static word => word.Fields[0]).ToArray() };
        if (hasTags)
        {
            columns.Add(TaggedWords.TagColumn, words.Select(static word => word.Fields[^1]).ToArray());
        }

        return new DataRow(columns, origin);
    }
}
