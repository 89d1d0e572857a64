using System.Collections;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Binding;

/// <summary>Texts from strings, hashtables and objects. An object without a text is never replaced by the name of its type.</summary>
internal static class TextInputs
{
    private static readonly string[] s_names = ["Text", "Prompt"];
    private static readonly string[] s_words = ["Tokens", "Words"];

    /// <summary>The text of an item: itself, or its property or key Text or Prompt.</summary>
    /// <param name="item">The item.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: it has no text.</exception>
    public static string Read(object? item) => AsText(item.Unwrap()) ?? AsText(s_names.Select(name => Find(item, name)).FirstOrDefault(static value => value is not null)) ?? throw new LoKrException(
        ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument,
        $"A {item.Unwrap()?.GetType().Name ?? "null"} is neither a text nor an object with a text in its property Text or Prompt.",
        "Give strings, or objects or hashtables with Text or Prompt.") { Target = item.Unwrap() };

    /// <summary>The text of an item with the second text of a pair: its property or key text_pair or TextPair.</summary>
    /// <param name="item">The item.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: it has no text.</exception>
    public static TextInput ReadPair(object? item) => new(Read(item), item.Unwrap() is string ? null : AsText(Find(item, TextInput.PairColumn) ?? Find(item, "TextPair")));

    /// <summary>The words of an item, its property or key Tokens or Words; or its text, with the second text of a pair.</summary>
    /// <param name="item">The item.</param>
    /// <param name="takesWords">Whether the model takes words.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: it has neither.</exception>
    public static TextInput ReadInput(object? item, bool takesWords) =>
        takesWords && item.Unwrap() is not string && s_words.Select(name => Find(item, name)).FirstOrDefault(static value => value is IList) is IList words
            ? TextInput.Of(AsWords(words) ?? throw NoWords(words))
            : ReadPair(item);

    /// <summary>The words of a row of data, or its text, with the second text of a pair.</summary>
    /// <param name="row">The row.</param>
    /// <param name="takesWords">Whether the model takes words.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataColumnMissing"/> or <see cref="ErrorIds.DataValueInvalid"/>.</exception>
    public static TextInput Of(DataRow row, bool takesWords) => takesWords && TextInput.HasWords(row)
        ? TextInput.OfWords(row)
        : new(RowFields.AnyText(row, RowFields.Has(row, "text") ? "text" : "prompt", "text or prompt"), TextInput.PairOf(row, "text and text_pair"));

    // Null for a list without a word, or with anything but words.
    private static string[]? AsWords(IList words)
    {
        string[] texts = [.. words.Cast<object?>().Select(static word => AsText(word.Unwrap())).OfType<string>()];
        return texts.Length == words.Count && Array.Exists(texts, static word => !string.IsNullOrWhiteSpace(word)) ? texts : null;
    }

    private static LoKrException NoWords(IList words) => new(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument, "A list of words has none, or something else.", "Give a list of texts.") { Target = words };

    /// <summary>The text of an item to search for: itself, or its property or key Query, Text or Prompt.</summary>
    /// <param name="item">The item.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: it has no text.</exception>
    public static string ReadQuery(object? item) => (item.Unwrap() is string ? null : AsText(Find(item, "Query"))) ?? Read(item);

    private static object? Find(object? item, string name) => (item.Unwrap() is IDictionary dictionary
        ? dictionary.Cast<DictionaryEntry>().FirstOrDefault(entry => name.Equals(entry.Key as string, StringComparison.OrdinalIgnoreCase)).Value
        : item is null ? null : PSObject.AsPSObject(item).Properties[name]?.Value).Unwrap();

    private static string? AsText(object? value) => value switch
    {
        string text => text,
        char letter => letter.ToString(),
        IFormattable number and (sbyte or byte or short or ushort or int or uint or long or ulong or float or double or decimal) =>
            number.ToString(null, CultureInfo.InvariantCulture),
        _ => null,
    };
}
