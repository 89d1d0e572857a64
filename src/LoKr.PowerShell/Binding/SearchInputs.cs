using LoKr.Core.Data;
using LoKr.Core.Inference;

namespace LoKr.PowerShell.Binding;

/// <summary>The texts that a search looks through, from texts, rows and data files.</summary>
internal static class SearchInputs
{
    /// <summary>Tells files from documents in the values of a corpus: a text that is the name of an existing data file is that file, any other text is a document.</summary>
    /// <param name="items">Texts, data files, and rows as hashtables or objects.</param>
    /// <param name="paths">Resolves the paths.</param>
    /// <returns>Files and rows for <see cref="DataRows.Read"/>, in order.</returns>
    public static IReadOnlyList<object?> ToRows(IEnumerable<object?> items, PathResolver paths) =>
        [.. items.Select(item => item.Unwrap() is string text && !IsDataFile(text, paths) ? new DataRow(new Dictionary<string, object?> { [SearchDocument.Columns[0]] = text }, $"the document '{text}'") : item)];

    private static bool IsDataFile(string text, PathResolver paths)
    {
        string name = text.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) ? text[..^3] : text;
        return DataReader.Extensions.Any(extension => name.EndsWith(extension, StringComparison.OrdinalIgnoreCase)) && (!text.Any(char.IsWhiteSpace) || File.Exists(paths.New(text)));
    }
}
