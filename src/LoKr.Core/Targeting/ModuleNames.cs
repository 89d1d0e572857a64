using LoKr.Core.Configuration;

namespace LoKr.Core.Targeting;

/// <summary>Short endings of dotted module names, as the entries of a target list are.</summary>
internal static class ModuleEndings
{
    /// <summary>Endings of a dotted name, shortest first, the whole name last.</summary>
    public static IEnumerable<string> Of(string name)
    {
        for (int dot = name.LastIndexOf('.'); dot >= 0; dot = dot == 0 ? -1 : name.LastIndexOf('.', dot - 1))
        {
            yield return name[(dot + 1)..];
        }

        yield return name;
    }

    /// <summary>The shortest endings, sorted, that mean exactly these modules; null where there are none.</summary>
    /// <param name="targets">The modules.</param>
    /// <param name="names">All modules of the model.</param>
    public static string[]? Shortest(IReadOnlySet<string> targets, IReadOnlyCollection<string> names)
    {
        HashSet<string> others = [.. names.Where(name => !targets.Contains(name)).SelectMany(Of)];
        string[] shortest = [.. targets
            .Select(name => Of(name).FirstOrDefault(ending => !others.Contains(ending)) ?? name)
            .Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
        return names.All(name => shortest.Any(ending => TargetMatcher.MatchesEntry(ending, name)) == targets.Contains(name)) ? shortest : null;
    }
}

/// <summary>rank_pattern and alpha_pattern: the first pattern that matches a module's name wins, each dictionary separately.</summary>
internal static class ModulePatterns
{
    /// <summary>The value for a module, or the default.</summary>
    public static T Find<T>(IEnumerable<KeyValuePair<string, T>> patterns, string name, T fallback)
    {
        foreach ((string pattern, T value) in patterns)
        {
            if (IsMatch(pattern, name) || pattern == name)
            {
                return value;
            }
        }

        return fallback;
    }

    /// <summary>Patterns that match none of the names.</summary>
    public static IReadOnlyList<string> Unmatched<T>(IEnumerable<KeyValuePair<string, T>> patterns, IReadOnlyCollection<string> names) =>
        [.. patterns.Select(static pair => pair.Key)
            .Where(pattern => !names.Any(name => IsMatch(pattern, name) || pattern == name))
            .Order(StringComparer.Ordinal)];

    private static bool IsMatch(string pattern, string name) => PythonRegex.Match($@"(.*\.)?({pattern})$", name).Success;
}
