using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Model;

namespace LoKr.PowerShell.Binding;

/// <summary>Turns names with wildcards into adapters of a model.</summary>
internal static class AdapterNames
{
    /// <summary>The adapters that match, in the order of the model; a plain name that matches none is an error that lists the known ones.</summary>
    public static IReadOnlyList<LoKrAdapter> Select(LoKrModel model, string[]? patterns)
    {
        if (patterns is null)
        {
            return model.Adapters;
        }

        HashSet<LoKrAdapter> chosen = [];
        foreach (string pattern in patterns)
        {
            if (WildcardPattern.ContainsWildcardCharacters(pattern))
            {
                WildcardPattern wildcard = WildcardPattern.Get(pattern, WildcardOptions.None);
                chosen.UnionWith(model.Adapters.Where(adapter => wildcard.IsMatch(adapter.Name)));
            }
            else
            {
                chosen.Add(model.GetAdapter(pattern));
            }
        }

        return [.. model.Adapters.Where(chosen.Contains)];
    }

    /// <summary>Names of the adapters that match, in the order of the model; none at all is an error.</summary>
    public static IReadOnlyList<string> Require(LoKrModel model, string[] patterns)
    {
        IReadOnlyList<LoKrAdapter> adapters = Select(model, patterns);
        return adapters.Count > 0
            ? [.. adapters.Select(adapter => adapter.Name)]
            : throw new LoKrException(
                ErrorIds.AdapterNotFound,
                LoKrErrorKind.NotFound,
                $"No adapter of {model.Name} matches {string.Join(", ", patterns)}; it has {(model.Adapters.Count == 0 ? "none" : string.Join(", ", model.Adapters))}.")
            {
                Target = patterns,
            };
    }
}
