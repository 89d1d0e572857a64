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
    private readonly IModuleAliases? _aliases;
    private readonly Dictionary<string, List<string>> _plain;
    private readonly Dictionary<string, List<string>> _byName;
    private readonly Rule _rule;

    private CheckpointNames(IModuleAliases? aliases, Dictionary<string, List<string>> plain, Dictionary<string, List<string>> byName, Rule rule)
    {
        (_aliases, _plain, _byName, _rule) = (aliases, plain, byName, rule);
        Prepended = rule.Prepend;
    }

    /// <summary>Prefix that the adapter's names have and the checkpoint's do not; empty for none.</summary>
    public string Prepended { get; }

    /// <summary>Finds the rule that turns the names of a checkpoint into those of an adapter.</summary>
    /// <param name="keys">Tensors of the checkpoint.</param>
    /// <param name="modules">Modules that the adapter changes.</param>
    /// <param name="aliases">Published names, or null.</param>
    /// <returns>The names under the first rule that covers every module, or under the one that covers most.</returns>
    public static CheckpointNames Match(IReadOnlyCollection<string> keys, IReadOnlyCollection<string> modules, IModuleAliases? aliases)
    {
        Dictionary<string, List<string>> plain = Build(keys, aliases, new Rule("", ""));
        string[] weights = [.. modules.Select(module => Canonical(aliases, module + ".weight"))];
        CheckpointNames best = new(aliases, plain, plain, new Rule("", ""));
        int most = weights.Count(plain.ContainsKey);
        if (most == weights.Length)
        {
            return best;
        }

        foreach (IEnumerable<Rule> tier in Rules(keys, modules.Concat(modules.Select(module => Canonical(aliases, module)))))
        {
            List<CheckpointNames> complete = [];
            foreach (Rule rule in tier)
            {
                Dictionary<string, List<string>> names = Build(keys, aliases, rule);
                int found = weights.Count(names.ContainsKey);
                if (found == weights.Length)
                {
                    complete.Add(new CheckpointNames(aliases, plain, names, rule));
                }
                else if (found > most)
                {
                    (most, best) = (found, new CheckpointNames(aliases, plain, names, rule));
                }
            }

            if (complete.Count > 0)
            {
                CheckOne(complete, weights[0]);
                return complete[0];
            }
        }

        return best;
    }

    /// <summary>The tensor of the checkpoint that has a name in the adapter, or null.</summary>
    public string? Find(string name)
    {
        string canonical = Canonical(_aliases, name);
        if (!_byName.TryGetValue(canonical, out List<string>? keys) && !_plain.TryGetValue(canonical, out keys))
        {
            return null;
        }

        return keys.Count == 1
            ? keys[0]
            : throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"'{name}' of the adapter matches {string.Join(" and ", keys.Select(static key => $"'{key}'"))} of the checkpoint.",
                "The checkpoint has two generations of names; use one that has each weight once.") { Target = name };
    }

    /// <summary>The names that a tensor of the checkpoint can have in the adapter; the first is the one closest to the checkpoint's.</summary>
    public IReadOnlyList<string> InAdapter(string key)
    {
        string name = _rule.Apply(key);
        string canonical = Canonical(_aliases, name);
        return [.. new[] { name, canonical, _aliases?.Published(canonical) ?? canonical }.Distinct(StringComparer.Ordinal)];
    }

    private static void CheckOne(List<CheckpointNames> complete, string weight)
    {
        string[] keys = [.. complete.Select(names => names._byName[weight][0]).Distinct(StringComparer.Ordinal)];
        if (keys.Length > 1)
        {
            throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"The adapter fits several parts of the checkpoint: {string.Join(" or ", keys)} could be '{weight}'.",
                "Name the folder of the part that the adapter was made for.") { Target = weight };
        }
    }

    // From the smallest change to the largest.
    private static IEnumerable<IEnumerable<Rule>> Rules(IReadOnlyCollection<string> keys, IEnumerable<string> modules)
    {
        string[] prepend = [.. Beginnings(modules, 2)];
        string[] remove = [.. Beginnings(keys, 3)];
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

    private static Dictionary<string, List<string>> Build(IReadOnlyCollection<string> keys, IModuleAliases? aliases, Rule rule)
    {
        Dictionary<string, List<string>> names = new(keys.Count, StringComparer.Ordinal);
        foreach (string key in keys)
        {
            string name = Canonical(aliases, rule.Apply(key));
            if (names.TryGetValue(name, out List<string>? same))
            {
                same.Add(key);
            }
            else
            {
                names.Add(name, [key]);
            }
        }

        return names;
    }

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
}
