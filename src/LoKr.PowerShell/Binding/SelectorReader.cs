using LoKr.Core;
using LoKr.Core.Adapters;

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
