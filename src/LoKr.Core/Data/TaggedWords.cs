using System.Globalization;
using LoKr.Core.Errors;

namespace LoKr.Core.Data;

/// <summary>
/// Columns of texts that are split into words: <c>tokens</c> or <c>words</c>, a list of texts, and <c>ner_tags</c> or <c>tags</c>, as many names of
/// tags, or their indices, of which -100 is none.
/// </summary>
internal static class TaggedWords
{
    /// <summary>The columns that rows must have, for messages.</summary>
    public const string Expected = "tokens (or words) and ner_tags (or tags)";

    private static readonly string[] s_words = ["tokens", "words"];
    private static readonly string[] s_tags = ["ner_tags", "tags"];

    /// <summary>The column of the words that a CoNLL file gives.</summary>
    public static string WordColumn => s_words[0];

    /// <summary>The column of the tags that a CoNLL file gives.</summary>
    public static string TagColumn => s_tags[0];

    /// <summary>Whether a row has words.</summary>
    public static bool HasWords(DataRow row) => s_words.Any(column => RowFields.HasList(row, column));

    /// <summary>Whether a row has words and their tags.</summary>
    public static bool HasTags(DataRow row) => HasWords(row) && s_tags.Any(column => RowFields.HasList(row, column));

    /// <summary>The words of a row.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/>; <see cref="ErrorIds.DataValueInvalid"/> for anything but a list of texts that are not all blank.</exception>
    public static IReadOnlyList<string> Words(DataRow row)
    {
        const string Wanted = "a list of words";
        string column = Column(row, s_words);
        IReadOnlyList<object> list = RowFields.List(row, column, Expected) ?? throw RowFields.Wrong(row, column, Wanted);
        return list.All(static word => word is string) && list.Any(static word => !string.IsNullOrWhiteSpace((string)word))
            ? [.. list.Cast<string>()]
            : throw RowFields.Wrong(row, column, Wanted);
    }

    /// <summary>The tags of a row: names (string) or indices (double).</summary>
    /// <param name="row">The row.</param>
    /// <param name="words">Number of its words.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/>; <see cref="ErrorIds.DataValueInvalid"/> for anything but as many names or whole numbers.</exception>
    public static IReadOnlyList<object> Tags(DataRow row, int words)
    {
        string column = Column(row, s_tags);
        IReadOnlyList<object>? list = RowFields.List(row, column, Expected);
        return list is null || !list.All(static tag => tag is string || (tag is double number && double.IsInteger(number)))
            ? throw RowFields.Wrong(row, column, "a list of names of tags, or of their indices")
            : list.Count == words
                ? list
                : throw new LoKrException(
                    ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidData, string.Create(CultureInfo.InvariantCulture, $"{row.Origin} has {words} words, but {list.Count} tags."), "Give every word one tag.")
                { Target = row.Origin };
    }

    /// <summary>The tags that a row names, each as often as a word has it; none for indices.</summary>
    /// <param name="row">The row.</param>
    /// <inheritdoc cref="Tags" path="/exception"/>
    public static IReadOnlyList<string> Names(DataRow row) => [.. Tags(row, Words(row).Count).OfType<string>()];

    // The first one that the row has; where it has none, the first one is missing.
    private static string Column(DataRow row, string[] columns) => columns.FirstOrDefault(column => RowFields.Has(row, column)) ?? columns[0];
}
