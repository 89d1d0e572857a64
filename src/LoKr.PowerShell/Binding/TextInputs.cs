using System.Collections;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Binding;

/// <summary>Texts from strings, hashtables and objects. An object without a text is never replaced by the name of its type.</summary>
internal static class TextInputs
{
    private static readonly string[] s_names = ["Text", "Prompt"];

    /// <summary>The text of an item: itself, or its property or key Text or Prompt.</summary>
    /// <param name="item">The item.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: it has no text.</exception>
    public static string Read(object? item) => AsText(item.Unwrap()) ?? AsText(Find(item)) ?? throw new LoKrException(
        ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument,
        $"A {item.Unwrap()?.GetType().Name ?? "null"} is neither a text nor an object with a text in its property Text or Prompt.",
        "Give strings, or objects or hashtables with Text or Prompt.") { Target = item.Unwrap() };

    private static object? Find(object? item)
    {
        foreach (string name in s_names)
        {
            object? value = item.Unwrap() is IDictionary dictionary
                ? dictionary.Cast<DictionaryEntry>().FirstOrDefault(entry => name.Equals(entry.Key as string, StringComparison.OrdinalIgnoreCase)).Value
                : item is null ? null : PSObject.AsPSObject(item).Properties[name]?.Value;
            if (value is not null)
            {
                return value.Unwrap();
            }
        }

        return null;
    }

    private static string? AsText(object? value) => value switch
    {
        string text => text,
        char letter => letter.ToString(),
        IFormattable number and (sbyte or byte or short or ushort or int or uint or long or ulong or float or double or decimal) =>
            number.ToString(null, CultureInfo.InvariantCulture),
        _ => null,
    };
}
