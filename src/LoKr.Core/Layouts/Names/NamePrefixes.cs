namespace LoKr.Core.Layouts.Names;

/// <summary>The prefixes of all tables, with which names are unwrapped: trainers wrap models that are wrapped already.</summary>
internal sealed class NamePrefixes
{
    private const int Deepest = 4;

    // What wrappers of any model put before a name: they say nothing about the part. torch.compile's can stand anywhere.
    private const string Compiled = "_orig_mod.";
    private static readonly string[] s_wrappers = [PeftAdapterFolder.Prefix, "module."];

    private readonly Dictionary<string, HashSet<ModelPart>> _parts = new(StringComparer.Ordinal);
    private readonly string[] _longestFirst;

    /// <summary>Collects the prefixes of families.</summary>
    public NamePrefixes(IEnumerable<ModelFamily> families)
    {
        ModelPart[] parts = [.. families.SelectMany(static family => family.Parts)];
        foreach (ModelPart part in parts)
        {
            foreach (string prefix in part.Programs.Values.SelectMany(static spellings => spellings).Select(static spelling => spelling.Prefix).Concat(part.CheckpointPrefixes).Where(static prefix => prefix.Length > 0))
            {
                if (!_parts.TryGetValue(prefix, out HashSet<ModelPart>? known))
                {
                    _parts.Add(prefix, known = []);
                }

                known.Add(part);
            }
        }

        // Every program wraps every denoiser in the same way.
        foreach (HashSet<ModelPart> known in _parts.Values.Where(static known => known.Any(static part => part.IsDenoiser)))
        {
            known.UnionWith(parts.Where(static part => part.IsDenoiser));
        }

        _longestFirst = [.. _parts.Keys.Concat(s_wrappers).Distinct(StringComparer.Ordinal).OrderByDescending(static prefix => prefix.Length).ThenBy(static prefix => prefix, StringComparer.Ordinal)];
    }

    /// <summary>The name without what torch.compile puts into it, which is never part of a model.</summary>
    public static string WithoutCompiled(string name) => name.Contains(Compiled[..^1], StringComparison.Ordinal)
        ? name.Replace(Compiled, "", StringComparison.Ordinal).Replace(Compiled[..^1] + '_', "", StringComparison.Ordinal)
        : name;

    /// <summary>The name as it is and without one or more prefixes.</summary>
    public IReadOnlyList<PrefixedName> Variants(string name)
    {
        List<PrefixedName> variants = [];
        Unwrap(WithoutCompiled(name), isUnderscored: false, null, 0, variants);
        return variants;
    }

    private void Unwrap(string name, bool isUnderscored, HashSet<ModelPart>? parts, int depth, List<PrefixedName> variants)
    {
        variants.Add(new(name, SplitName.Of(name), isUnderscored, parts));
        if (depth == Deepest)
        {
            return;
        }

        foreach (string prefix in _longestFirst)
        {
            if (name.Length > prefix.Length && name.StartsWith(prefix, StringComparison.Ordinal))
            {
                HashSet<ModelPart>? known = s_wrappers.Contains(prefix) ? null : _parts.GetValueOrDefault(prefix);
                Unwrap(name[prefix.Length..], isUnderscored || prefix.EndsWith('_'), parts is null ? known : known is null ? parts : [.. parts.Intersect(known)], depth + 1, variants);
            }
        }
    }
}

/// <summary>A name of an adapter without prefixes.</summary>
/// <param name="Name">The rest of the name.</param>
/// <param name="Split">The rest of the name, split.</param>
/// <param name="IsUnderscored">Whether underscores stand for its dots.</param>
/// <param name="Parts">Parts of pipelines that the prefixes are for; null where they say nothing.</param>
internal sealed record PrefixedName(string Name, SplitName Split, bool IsUnderscored, IReadOnlySet<ModelPart>? Parts)
{
    /// <summary>The weights of a family that the name can refer to; without a prefix that says otherwise, weights of the denoiser.</summary>
    public IEnumerable<NameMatch> FindIn(ModelFamily family) => family.Parts
        .Where(part => Parts is null ? part.IsDenoiser : Parts.Contains(part))
        .SelectMany(part => part.Find(Split, IsUnderscored));
}
