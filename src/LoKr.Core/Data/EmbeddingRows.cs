using LoKr.Core.Errors;

namespace LoKr.Core.Data;

/// <summary>Kinds of rows in a sentence encoder's data.</summary>
internal enum EmbeddingRowKind
{
    /// <summary>A text with its partner, and perhaps wrong ones: <c>anchor</c> or <c>query</c>, <c>positive</c>, <c>negative</c>, <c>negative_1</c> and so on.</summary>
    Pair,

    /// <summary>Two texts and how similar they are: <c>sentence1</c>, <c>sentence2</c>, <c>score</c>.</summary>
    Scored,

    /// <summary>A query and the names of the documents that answer it: <c>query</c>, <c>relevant</c>. Only an evaluation uses it.</summary>
    Search,

    /// <summary>A text to search: <c>document</c>, and its name in <c>id</c> where queries name it. Only an evaluation uses it.</summary>
    Document,
}

/// <summary>A row of a sentence encoder's data.</summary>
/// <param name="Origin">File and line, for messages.</param>
/// <param name="Kind">What it is.</param>
/// <param name="First">The anchor, query, first sentence or document.</param>
/// <param name="Others">The positive and then the negatives; the second sentence; none otherwise.</param>
internal sealed record EmbeddingRow(string Origin, EmbeddingRowKind Kind, string First, IReadOnlyList<string> Others)
{
    /// <summary>The columns that rows must have, for messages.</summary>
    public const string Expected = "anchor (or query) and positive, sentence1, sentence2 and score, query and relevant, or document";

    private const string Positive = "positive";
    private const string Negative = "negative";
    private const string Relevant = "relevant";
    private const string Id = "id";

    private static readonly string[] s_first = ["sentence1", "query", "anchor", "document"];

    /// <summary>Whether the first text is a query and the others are documents, which may have prompts of their own.</summary>
    public bool IsSearch { get; private init; }

    /// <summary>How similar the texts are; NaN where the row does not say.</summary>
    public float Score { get; private init; } = float.NaN;

    /// <summary>Names of the documents that answer a query.</summary>
    public IReadOnlyList<string> RelevantIds { get; private init; } = [];

    /// <summary>Name of a document, or of the positive of a pair; null without one.</summary>
    public string? DocumentId { get; private init; }

    /// <summary>Reads a row by the columns that it has.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static EmbeddingRow Of(DataRow row)
    {
        bool isSearch = RowFields.Has(row, "query");
        string anchor = isSearch ? "query" : "anchor";
        if (RowFields.Has(row, "sentence1") || RowFields.Has(row, "sentence2"))
        {
            return Scored(row, "sentence1", "sentence2");
        }

        if (RowFields.Has(row, Relevant))
        {
            return new(row.Origin, EmbeddingRowKind.Search, RowFields.Text(row, anchor, Expected), []) { IsSearch = true, RelevantIds = Ids(row) };
        }

        if (RowFields.Has(row, anchor))
        {
            return RowFields.Has(row, "score")
                ? Scored(row, anchor, Positive)
                : new(row.Origin, EmbeddingRowKind.Pair, RowFields.Text(row, anchor, Expected), [RowFields.Text(row, Positive, Expected), .. Negatives(row)]) { IsSearch = isSearch, DocumentId = IdOf(row) };
        }

        return RowFields.Has(row, "document")
            ? new(row.Origin, EmbeddingRowKind.Document, RowFields.Text(row, "document", Expected), []) { IsSearch = true, DocumentId = IdOf(row) }
            : throw Missing(row);
    }

    /// <summary>The columns of a row with its text and, where it has one, the text beside it; null for a row that is not for a sentence encoder.</summary>
    public static (string First, string? Second)? Columns(DataRow row)
    {
        string? first = s_first.FirstOrDefault(column => RowFields.Has(row, column));
        string second = first == "sentence1" ? "sentence2" : Positive;
        return first is null ? null : (first, first != "document" && RowFields.Has(row, second) ? second : null);
    }

    private static EmbeddingRow Scored(DataRow row, string first, string second) =>
        new(row.Origin, EmbeddingRowKind.Scored, RowFields.Text(row, first, Expected), [RowFields.Text(row, second, Expected)]) { Score = (float)RowFields.Number(row, "score", Expected) };

    // negative, negative_1, negative1 and so on, in the order of the row; each is a text or a list of texts, and may be null.
    private static IEnumerable<string> Negatives(DataRow row) => row.Fields.Keys
        .Where(static name => name.StartsWith(Negative, StringComparison.OrdinalIgnoreCase) && name.AsSpan(Negative.Length).TrimStart('_').TrimStart("0123456789").IsEmpty)
        .Where(name => !RowFields.IsNull(row, name))
        .SelectMany(name => RowFields.List(row, name, Expected) is { } several
            ? several.Select(item => item as string is { } text && !string.IsNullOrWhiteSpace(text) ? text : throw RowFields.Wrong(row, name, "texts that are not empty"))
            : [RowFields.Text(row, name, Expected)]);

    private static string[] Ids(DataRow row)
    {
        string[] ids = RowFields.List(row, Relevant, Expected) is { } several
            ? [.. several.Select(static item => Convert.ToString(item, System.Globalization.CultureInfo.InvariantCulture)!)]
            : [RowFields.Label(row, Relevant, Expected)];
        return ids.Length > 0 ? ids : throw RowFields.Wrong(row, Relevant, "the id of a document, or a list of ids");
    }

    private static string? IdOf(DataRow row) => RowFields.Has(row, Id) && !RowFields.IsNull(row, Id) ? RowFields.Label(row, Id, Expected) : null;

    private static LoKrException Missing(DataRow row) => new(ErrorIds.DataColumnMissing, LoKrErrorKind.InvalidData,
        $"{row.Origin} has none of the columns that a sentence encoder reads; its columns are: {string.Join(", ", row.Fields.Keys)}.", $"The required columns are {Expected}.") { Target = row.Origin };
}
