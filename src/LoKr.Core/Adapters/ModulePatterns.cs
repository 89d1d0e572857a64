namespace LoKr.Core.Adapters;

/// <summary>rank_pattern and alpha_pattern: the first pattern that matches a module's name wins, each dictionary by itself.</summary>
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
