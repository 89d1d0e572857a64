using System.Collections;
using System.Collections.Specialized;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Binding;

/// <summary>Reads a choice of modules from a parameter of names and one of a pattern.</summary>
internal static class SelectorReader
{
    /// <summary>The selector, or null when neither parameter was given.</summary>
    public static ModuleSelector? Read(string[]? names, string namesParameter, string? pattern, string patternParameter)
    {
        if (names is not null && pattern is not null)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"-{namesParameter} and -{patternParameter} were both given.", "Use the one or the other.");
        }

        if (pattern is not null)
        {
            return ModuleSelector.FromPattern(pattern);
        }

        if (names is null)
        {
            return null;
        }

        if (names.Length == 1 && names[0].Equals("all-linear", StringComparison.OrdinalIgnoreCase))
        {
            return ModuleSelector.FromPattern("all-linear");
        }

        // PEFT would match such a name literally and find nothing; it is nearly always a pattern in the wrong place.
        string? odd = names.FirstOrDefault(name => !name.All(c => char.IsLetterOrDigit(c) || c is '_' or '.' or '-'));
        return odd is null
            ? ModuleSelector.FromNames(names)
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"'{odd}' is not a module name.", $"Give a regular expression with -{patternParameter}.") { Target = odd };
    }
}

/// <summary>Reads a dictionary of values by pattern of module names.</summary>
internal static class PatternReader
{
    /// <summary>The entries in their order; none without a dictionary.</summary>
    /// <param name="pattern">The dictionary.</param>
    /// <param name="parameter">Name of the parameter, for errors.</param>
    /// <param name="warning">Says that the order of the entries is not the written one; null where it is.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/>: a value is not a number.</exception>
    public static IReadOnlyList<KeyValuePair<string, T>> Read<T>(IDictionary? pattern, string parameter, out string? warning)
    {
        warning = pattern is { Count: > 1 } and not IOrderedDictionary
            ? $"-{parameter} is a plain hashtable with {pattern.Count} entries, whose order is not the written one, and the first match wins: use [ordered]@{{ … }}."
            : null;
        return [.. (pattern ?? new Hashtable()).Cast<DictionaryEntry>().Select(entry => Read<T>(entry, parameter))];
    }

    private static KeyValuePair<string, T> Read<T>(DictionaryEntry entry, string parameter)
    {
        string key = Convert.ToString(entry.Key, CultureInfo.InvariantCulture)!;
        return LanguagePrimitives.TryConvertTo(entry.Value, CultureInfo.InvariantCulture, out T value)
            ? new(key, value)
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"-{parameter} '{key}' has the value '{entry.Value}', which is not a number.") { Target = key };
    }
}
