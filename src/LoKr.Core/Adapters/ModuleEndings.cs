namespace LoKr.Core.Adapters;

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
