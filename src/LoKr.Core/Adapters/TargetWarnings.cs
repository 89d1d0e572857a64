using LoKr.Core.Modeling;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>What works but is probably not meant.</summary>
internal static class TargetWarnings
{
    public static List<string> Collect(
        LoKrConfig given,
        LoKrConfig resolved,
        IPretrainedModel? pretrained,
        IReadOnlyList<(string Name, nn.Module Module)> modules,
        IReadOnlyList<BaseLayer> layers,
        IReadOnlyList<(string Name, nn.Module Module)> saved,
        bool anythingExcluded)
    {
        List<string> warnings = [];
        string[] names = [.. layers.Select(static layer => layer.Name)];
        if (given.TargetModules?.Names is IReadOnlyList<string> entries)
        {
            string[] idle = [.. entries.Where(entry => !modules.Any(module => TargetMatcher.MatchesEntry(entry, module.Name)))];
            Add(warnings, idle, "These entries of TargetModules match no module");
        }

        Add(warnings, ModulePatterns.Unmatched(given.RankPattern, names), "These keys of RankPattern match no adapted module and have no effect");
        Add(warnings, ModulePatterns.Unmatched(given.AlphaPattern, names), "These keys of AlphaPattern match no adapted module and have no effect");
        if (given.ExcludeModules is not null && !anythingExcluded)
        {
            warnings.Add($"ExcludeModules ({given.ExcludeModules}) excludes no module.");
        }

        if (pretrained is { TiedParameters.Count: > 0 })
        {
            string[] tied = [.. pretrained.TiedParameters.SelectMany(static pair => new[] { pair.Key, pair.Value }).Distinct()
                .Select(static name => name[..Math.Max(name.LastIndexOf('.'), 0)])
                .Where(module => names.Contains(module) || saved.Any(entry => entry.Name == module))];
            Add(warnings, tied, "These modules share their weight with another one; their adapter changes only one of the two, and cannot be merged");
        }

        return warnings;
    }

    private static void Add(List<string> warnings, IReadOnlyCollection<string> names, string text)
    {
        if (names.Count > 0)
        {
            warnings.Add($"{text}: {string.Join(", ", names)}.");
        }
    }
}
