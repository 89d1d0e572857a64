using LoKr.Core.Errors;
using LoKr.Core.Nn;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>
/// Finds the tensors of a checkpoint that the modules of an adapter refer to. The two may differ in names: the checkpoint of a bare model
/// lacks the prefix of the model with a head (<c>bert.</c>), a component of a larger model has one more (<c>text_model.</c>), and either may
/// use the published names of the family.
/// </summary>
internal sealed class CheckpointNames
{
    // Models have a few; a file with thousands is none, and its rules would take hours.
    private const int MostBeginnings = 32;

    private readonly IModuleAliases? _aliases;
    private readonly Naming _plain;
    private readonly IReadOnlyList<Naming> _namings;

    private CheckpointNames(IModuleAliases? aliases, Naming plain, IReadOnlyList<Naming> namings) => (_aliases, _plain, _namings) = (aliases, plain, namings);

    /// <summary>Prefix that the adapter's names have and the checkpoint's do not; empty for none.</summary>
    public string Prepended => _namings is [Naming only] ? only.Rule.Prepend : "";

    /// <summary>Whether the adapter has every name of the checkpoint, with a prefix or without, so that a name of the adapter's own can stand beside them.</summary>
    public bool KeepsBeginnings => _namings is [{ Rule.Remove: "" }];

    /// <summary>Finds the rule that turns the names of a checkpoint into those of an adapter.</summary>
    /// <param name="keys">Tensors of the checkpoint.</param>
    /// <param name="modules">Modules that the adapter changes.</param>
    /// <param name="aliases">Published names, or null.</param>
    /// <returns>
    /// The names under the first rule that covers every module; where there is none, under one rule for each part of the model (its vision and
    /// its language, say); where these do not cover every module either, under the rule that covers most.
    /// </returns>
    /// <exception cref="LoKrException"><c>LoKr.AdapterKeysMismatch</c>: the modules fit several parts of the checkpoint.</exception>
    public static CheckpointNames Match(IReadOnlyCollection<string> keys, IReadOnlyCollection<string> modules, IModuleAliases? aliases)
    {
        Naming plain = new(keys, aliases, new Rule("", ""));
        string[] weights = [.. modules.Select(module => Canonical(aliases, module + ".weight"))];
        Naming[][] tiers = [[plain], .. Rules(keys, modules.Concat(modules.Select(module => Canonical(aliases, module))))
            .Select(tier => tier.Select(rule => new Naming(keys, aliases, rule)).ToArray())];
        List<Naming> namings = [];
        while (weights.Length > 0 && Best(tiers, weights) is Naming best)
        {
            namings.Add(best);
            weights = [.. weights.Where(weight => !best.Keys.ContainsKey(weight))];
        }

        return new(aliases, plain, namings.Count == 0 ? [plain] : weights.Length > 0 ? namings[..1] : namings);
    }

    /// <summary>The tensor of the checkpoint that has a name in the adapter, or null.</summary>
    public string? Find(string name)
    {
        string canonical = Canonical(_aliases, name);
        List<string>? keys = _namings.Append(_plain).Select(naming => naming.Keys.GetValueOrDefault(canonical)).FirstOrDefault(static keys => keys is not null);
        return keys switch
        {
            null => null,
            [string only] => only,
            _ => throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"'{name}' of the adapter matches {string.Join(" and ", keys.Select(static key => $"'{key}'"))} of the checkpoint.",
                "The checkpoint has two generations of names; use one that has each weight once.") { Target = name },
        };
    }

    /// <summary>The names that a tensor of the checkpoint can have in the adapter; the first is the one closest to the checkpoint's.</summary>
    public IReadOnlyList<string> InAdapter(string key) =>
    [
        .. _namings.SelectMany(naming =>
        {
            string name = naming.Rule.Apply(key);
            string canonical = Canonical(_aliases, name);
            return new[] { name, canonical, _aliases?.Published(canonical) ?? canonical };
        }).Distinct(StringComparer.Ordinal),
    ];

    /// <summary>The first rule that covers every weight, or else the first of those that cover most; null if none covers any.</summary>
    private static Naming? Best(Naming[][] tiers, string[] weights)
    {
        (Naming? Naming, Naming[] Tier, int Found) best = (null, [], 0);
        HashSet<string> wanted = [.. weights];
        foreach (Naming[] tier in tiers.TakeWhile(_ => best.Found < weights.Length))
        {
            foreach (Naming naming in tier)
            {
                int found = naming.Count(wanted);
                best = found > best.Found ? (naming, tier, found) : best;
            }
        }

        if (best.Naming is not null)
        {
            CheckOne(best.Naming, best.Tier, weights);
        }

        return best.Naming;
    }

    /// <summary>Refuses rules that find the same weights in different places of the checkpoint.</summary>
    private static void CheckOne(Naming best, Naming[] tier, string[] weights)
    {
        string[] covered = [.. weights.Where(best.Keys.ContainsKey)];
        string weight = covered[0];
        HashSet<string> wanted = [.. covered];
        string[] places = [.. tier.Where(naming => naming.Count(wanted) == wanted.Count).Select(naming => naming.Keys[weight][0]).Distinct(StringComparer.Ordinal)];
        if (places.Length > 1)
        {
            throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"The adapter fits several parts of the checkpoint: {string.Join(" or ", places)} could be '{weight}'.",
                "Name the folder of the part that the adapter was made for.") { Target = weight };
        }
    }

    // From the smallest change to the largest.
    private static IEnumerable<IEnumerable<Rule>> Rules(IReadOnlyCollection<string> keys, IEnumerable<string> modules)
    {
        string[] prepend = [.. Beginnings(modules, 2).Take(MostBeginnings)];
        string[] remove = [.. Beginnings(keys, 3).Take(MostBeginnings)];
        yield return prepend.Select(static start => new Rule("", start));
        yield return remove.Select(static start => new Rule(start, ""));
        yield return remove.SelectMany(removed => prepend.Where(start => start != removed).Select(start => new Rule(removed, start)));
    }

    // The first parts of dotted names, up to the number of a layer.
    private static IEnumerable<string> Beginnings(IEnumerable<string> names, int most) => names.SelectMany(name =>
        {
            List<string> found = [];
            int end = -1;
            for (int i = 0; i < most; i++)
            {
                int next = name.IndexOf('.', end + 1);
                if (next <= end + 1 || char.IsAsciiDigit(name[end + 1]))
                {
                    break;
                }

                end = next;
                found.Add(name[..(end + 1)]);
            }

            return found;
        }).Distinct(StringComparer.Ordinal).OrderBy(static start => start.Length);

    // TensorFlow's names of a norm's weights, which the first BERT checkpoints still have.
    private static string Canonical(IModuleAliases? aliases, string name)
    {
        string current = name.EndsWith(".gamma", StringComparison.Ordinal) ? name[..^5] + "weight"
            : name.EndsWith(".beta", StringComparison.Ordinal) ? name[..^4] + "bias"
            : name;
        return aliases?.Canonical(current) ?? current;
    }

    private sealed record Rule(string Remove, string Prepend)
    {
        public string Apply(string key) => Prepend + (key.StartsWith(Remove, StringComparison.Ordinal) ? key[Remove.Length..] : key);
    }

    /// <summary>The tensors of a checkpoint by their names under a rule.</summary>
    private sealed class Naming(IReadOnlyCollection<string> keys, IModuleAliases? aliases, Rule rule)
    {
        /// <summary>The rule.</summary>
        public Rule Rule => rule;

        /// <summary>How many names the rule finds; nothing is kept.</summary>
        public int Count(HashSet<string> wanted) => keys.Select(key => Canonical(aliases, rule.Apply(key))).Where(wanted.Contains).Distinct(StringComparer.Ordinal).Count();

        /// <summary>Tensors by canonical name in the adapter.</summary>
        public Dictionary<string, List<string>> Keys => field ??= keys.GroupBy(key => Canonical(aliases, rule.Apply(key)), StringComparer.Ordinal)
            .ToDictionary(static group => group.Key, static group => group.ToList(), StringComparer.Ordinal);
    }
}
