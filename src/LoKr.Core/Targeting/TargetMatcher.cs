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
        if (config.ExcludeModules is ModuleSelector exclude && MatchesSelector(exclude, name))
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

    /// <summary>Whether an entry of the target list is responsible for a name.</summary>
    public static bool MatchesEntry(string entry, string name) => name == entry || name.EndsWith("." + entry, StringComparison.Ordinal);

    private static bool MatchesSelector(ModuleSelector selector, string name) => selector.Pattern is string pattern
        ? PythonRegex.FullMatch(pattern, name)
        : selector.Names!.Any(entry => MatchesEntry(entry, name));

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

        return index is not null && layers.Contains(int.Parse(index, CultureInfo.InvariantCulture));
    }
}
