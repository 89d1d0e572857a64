using System.Globalization;
using LoKr.Core.Configuration;

namespace LoKr.Core.Targeting;

/// <summary>Whether a module name is targeted: PEFT 0.21's rules, in PEFT's order.</summary>
internal sealed class TargetMatcher(LoKrConfig config)
{
    private const string UsualLayerPattern = @".*?\.[^.]*\.(\d+)\.";

    private readonly HashSet<string> _names = new(config.TargetModules?.Names ?? [], StringComparer.Ordinal);

    /// <summary>Role of a module in the adapter.</summary>
    public enum Verdict
    {
        /// <summary>Not targeted.</summary>
        None,

        /// <summary>Adapted.</summary>
        Target,

        /// <summary>Left alone because of exclude_modules.</summary>
        Excluded,

        /// <summary>Left alone because it is, or lies in, a module that is trained whole.</summary>
        Saved,
    }

    /// <summary>Decides about one full module name.</summary>
    public Verdict Check(string name)
    {
        if (config.ExcludeModules is ModuleSelector exclude && exclude.Matches(name))
        {
            return Verdict.Excluded;
        }

        foreach (string saved in config.ModulesToSave ?? [])
        {
            if (PythonRegex.Match($@"(^|.*\.){saved}($|\..*)", name).Success)
            {
                return Verdict.Saved;
            }
        }

        if (config.TargetModules is not ModuleSelector targets)
        {
            return Verdict.None;
        }

        if (targets.Pattern is not null)
        {
            // As in PEFT, layers_to_transform is not consulted for a regular expression.
            return PythonRegex.FullMatch(targets.Pattern, name) ? Verdict.Target : Verdict.None;
        }

        // As in PEFT, an exact name passes without the layer filter.
        return _names.Contains(name) || (MatchesSuffix(targets.Names!, name) && IsChosenLayer(name)) ? Verdict.Target : Verdict.None;
    }

    private static bool MatchesSuffix(IReadOnlyList<string> entries, string name) =>
        entries.Any(entry => name.EndsWith("." + entry, StringComparison.Ordinal));

    /// <summary>Whether layers_to_transform lets a module through.</summary>
    public bool IsChosenLayer(string name)
    {
        if (config.LayersToTransform is not { IsDefaultOrEmpty: false } layers)
        {
            return true;
        }

        string? index = null;
        if (config.LayersPattern is { IsDefaultOrEmpty: false } patterns && patterns.Any(static pattern => pattern.Length > 0))
        {
            index = patterns
                .Select(pattern => PythonRegex.Match($@"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.", name))
                .FirstOrDefault(static match => match.Success)?.Groups["idx"].Value;
        }
        else if (PythonRegex.Match(UsualLayerPattern, name) is { Success: true } match)
        {
            index = match.Groups[1].Value;
        }

        // A number that is no layer's, such as one of twenty digits, is not chosen.
        return int.TryParse(index, NumberStyles.None, CultureInfo.InvariantCulture, out int layer) && layers.Contains(layer);
    }
}

/// <summary>Short endings of dotted module names, as the entries of a target list are.</summary>
public static class ModuleEndings
{
    /// <summary>
    /// Endings to offer to someone who writes an entry: the shortest of each name that does not begin with a number, or, where none of these
    /// begins with what is written already, every ending that does. Each once, those of few parts first.
    /// </summary>
    /// <param name="names">Full names of modules.</param>
    /// <param name="beginning">What is written already.</param>
    public static IReadOnlyList<string> Suggest(IEnumerable<string> names, string? beginning)
    {
        ArgumentNullException.ThrowIfNull(names);
        string text = (beginning ?? "").Trim('\'', '"');
        string[][] endings = [.. names.Select(static name => Of(name).Where(static ending => ending.Length > 0 && !char.IsAsciiDigit(ending[0])).ToArray()).Where(static all => all.Length > 0)];
        bool IsMeant(string ending) => ending.StartsWith(text, StringComparison.OrdinalIgnoreCase);
        IEnumerable<string> shortest = endings.Select(static all => all[0]);
        return [.. (shortest.Any(IsMeant) ? shortest : endings.SelectMany(static all => all)).Where(IsMeant)
            .Distinct(StringComparer.Ordinal).OrderBy(static ending => ending.Count(static c => c == '.')).ThenBy(static ending => ending, StringComparer.Ordinal)];
    }

    /// <summary>Endings of a dotted name, shortest first, the whole name last.</summary>
    internal static IEnumerable<string> Of(string name)
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
    internal static string[]? Shortest(IReadOnlySet<string> targets, IReadOnlyCollection<string> names)
    {
        HashSet<string> others = [.. names.Where(name => !targets.Contains(name)).SelectMany(Of)];
        string[] shortest = [.. targets
            .Select(name => Of(name).FirstOrDefault(ending => !others.Contains(ending)) ?? name)
            .Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)];
        return names.All(name => shortest.Any(ending => ModuleSelector.MatchesEntry(ending, name)) == targets.Contains(name)) ? shortest : null;
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
