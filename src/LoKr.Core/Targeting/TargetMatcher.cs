using System.Globalization;
using LoKr.Core.Configuration;

namespace LoKr.Core.Targeting;

/// <summary>Whether a module name is targeted: PEFT 0.21's rules, in PEFT's order. One object matches the names of one model.</summary>
internal sealed class TargetMatcher(LoKrConfig config)
{
    private const string UsualLayerPattern = @".*?\.[^.]*\.(?P<idx>\d+)\.";

    private readonly HashSet<string> _names = new(config.TargetModules?.Names ?? [], StringComparer.Ordinal);
    private readonly Lazy<Func<string, bool>> _isExcluded = new(() => config.ExcludeModules?.CreateMatcher() ?? (static _ => false));
    private readonly Lazy<Func<string, bool>> _isTarget = new(() => config.TargetModules?.CreateMatcher() ?? (static _ => false));
    private readonly Lazy<PythonRegex[]> _saved = new(() => [.. (config.ModulesToSave ?? []).Select(static saved => new PythonRegex($@"(^|.*\.){saved}($|\..*)"))]);

    // PEFT before 0.21 wants a module before a list that layers_pattern names, too (its pull request 2158).
    private readonly Lazy<PythonRegex[]> _layers = new(() => config.LayersPattern is { Count: > 0 } patterns && patterns.Any(static pattern => pattern.Length > 0)
        ? [.. patterns.Select(static pattern => new PythonRegex($@"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\."))]
        : [new PythonRegex(UsualLayerPattern)]);

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
        if (_isExcluded.Value(name))
        {
            return Verdict.Excluded;
        }

        if (_saved.Value.Any(saved => saved.IsMatch(name)))
        {
            return Verdict.Saved;
        }

        if (config.TargetModules is not ModuleSelector targets)
        {
            return Verdict.None;
        }

        if (targets.Pattern is not null)
        {
            // As in PEFT, layers_to_transform is not consulted for a regular expression.
            return _isTarget.Value(name) ? Verdict.Target : Verdict.None;
        }

        // As in PEFT, an exact name passes without the layer filter.
        return _names.Contains(name) || (MatchesSuffix(targets.Names!, name) && IsChosenLayer(name)) ? Verdict.Target : Verdict.None;
    }

    private static bool MatchesSuffix(IReadOnlyList<string> entries, string name) =>
        entries.Any(entry => name.EndsWith("." + entry, StringComparison.Ordinal));

    /// <summary>Whether layers_to_transform lets a module through.</summary>
    public bool IsChosenLayer(string name)
    {
        if (config.LayersToTransform is not { Count: > 0 } layers)
        {
            return true;
        }

        string? index = _layers.Value.Select(layer => layer.Match(name)).FirstOrDefault(static match => match.Success)?.Groups["idx"].Value;

        // A number that is not a layer's, such as one of twenty digits, is not chosen.
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

/// <summary>rank_pattern or alpha_pattern: the first pattern that matches a module's name wins, each dictionary separately.</summary>
/// <param name="patterns">Patterns with their values.</param>
internal sealed class ModulePatterns<T>(IEnumerable<KeyValuePair<string, T>> patterns)
{
    private readonly Lazy<(string Pattern, T Value, PythonRegex Regex)[]> _patterns =
        new(() => [.. patterns.Select(static pair => (pair.Key, pair.Value, new PythonRegex($@"(.*\.)?({pair.Key})$")))]);

    /// <summary>The value for a module, or the default.</summary>
    public T Find(string name, T fallback)
    {
        foreach ((string pattern, T value, PythonRegex regex) in _patterns.Value)
        {
            if (regex.IsMatch(name) || pattern == name)
            {
                return value;
            }
        }

        return fallback;
    }

    /// <summary>Patterns that match none of the names.</summary>
    public IReadOnlyList<string> Unmatched(IReadOnlyCollection<string> names) =>
        [.. _patterns.Value.Where(entry => !names.Any(name => entry.Regex.IsMatch(name) || entry.Pattern == name)).Select(static entry => entry.Pattern).Order(StringComparer.Ordinal)];
}

/// <summary>Rank and alpha of the modules that a configuration adapts.</summary>
internal sealed class ModuleRanks(LoKrConfig config)
{
    private readonly ModulePatterns<int> _ranks = new(config.RankPattern);
    private readonly ModulePatterns<double> _alphas = new(config.AlphaPattern);

    /// <summary>The configuration.</summary>
    public LoKrConfig Config => config;

    /// <summary>Rank of a module, by rank_pattern or r.</summary>
    public int Rank(string name) => _ranks.Find(name, config.R);

    /// <summary>Alpha of a module, by alpha_pattern or alpha.</summary>
    public double Alpha(string name) => _alphas.Find(name, config.Alpha);
}
