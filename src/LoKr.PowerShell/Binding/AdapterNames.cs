using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Binding;

/// <summary>Turns names with wildcards into names of adapters of a model.</summary>
internal static class AdapterNames
{
    /// <summary>The names that match, in the order of the model. A plain name that matches none is an error; a wildcard may match none.</summary>
    /// <param name="model">The model or the pipeline.</param>
    /// <param name="patterns">Names, with or without wildcards; null for all adapters.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.AdapterNotFound"/>.</exception>
    public static IReadOnlyList<string> Select(IAdaptable model, string[]? patterns)
    {
        IReadOnlyList<string> names = model.GetAdapterNames();
        if (patterns is null)
        {
            return names;
        }

        HashSet<string> chosen = new(StringComparer.Ordinal);
        foreach (string pattern in patterns)
        {
            if (WildcardPattern.ContainsWildcardCharacters(pattern))
            {
                WildcardPattern wildcard = WildcardPattern.Get(pattern, WildcardOptions.None);
                chosen.UnionWith(names.Where(wildcard.IsMatch));
            }
            else
            {
                // Throws for an unknown name, and lists the known ones.
                model.GetAdapters(pattern);
                chosen.Add(pattern);
            }
        }

        return [.. names.Where(chosen.Contains)];
    }

    /// <summary>The names that match, in the order of the model; none at all is an error.</summary>
    /// <inheritdoc cref="Select"/>
    public static IReadOnlyList<string> Require(IAdaptable model, string[] patterns)
    {
        IReadOnlyList<string> names = Select(model, patterns);
        return names.Count > 0
            ? names
            : throw new LoKrException(
                ErrorIds.AdapterNotFound,
                LoKrErrorKind.NotFound,
                $"No adapter of {model.Name} matches {string.Join(", ", patterns)}; it has {(model.GetAdapterNames() is { Count: > 0 } known ? string.Join(", ", known) : "none")}.")
            {
                Target = patterns,
            };
    }
}
