using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Targeting;

/// <summary>
/// Translates adapters from the published names of a model's modules (<see cref="IModuleAliases"/>) to the names of its module tree.
/// Names that are neither stay unchanged, so that the checks that follow report them.
/// </summary>
internal static class ModuleAliases
{
    /// <summary>Translates the names of tensors.</summary>
    /// <exception cref="LoKrException">Two names mean one tensor (LoKr.AdapterKeysMismatch).</exception>
    public static IReadOnlyDictionary<string, Tensor> Translate(nn.Module root, IReadOnlyDictionary<string, Tensor> tensors)
    {
        if (root is not IModuleAliases aliases)
        {
            return tensors;
        }

        Dictionary<string, (string Given, Tensor Tensor)> named = new(StringComparer.Ordinal);
        foreach ((string given, Tensor tensor) in tensors)
        {
            string name = aliases.Canonical(given);
            if (!named.TryAdd(name, (given, tensor)))
            {
                throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                    $"'{given}' and '{named[name].Given}' are two names of one tensor.", "The file mixes two generations of names; delete one of the two tensors.")
                { Target = given };
            }
        }

        return named.ToDictionary(static entry => entry.Key, static entry => entry.Value.Tensor, StringComparer.Ordinal);
    }

    /// <summary>
    /// Translates a configuration: an entry that matches no module under the names of the tree, but some under published names, becomes the
    /// shortest names of these in the tree.
    /// </summary>
    /// <param name="root">The model.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="warnings">Says which entries were translated.</param>
    public static LoKrConfig Translate(nn.Module root, LoKrConfig config, out string[] warnings)
    {
        warnings = [];
        if (root is not IModuleAliases aliases || config is null)
        {
            return config!;
        }

        Translator translator = new(aliases, [.. ModuleTree.Modules(root).Select(static entry => entry.Name)], config);
        LoKrConfig translated = config with
        {
            TargetModules = translator.Selector(config.TargetModules, filtered: true),
            ExcludeModules = translator.Selector(config.ExcludeModules, filtered: false),
            ModulesToSave = config.ModulesToSave is { Count: > 0 } saved ? [.. saved.SelectMany(translator.SavedModule)] : config.ModulesToSave,
            RankPattern = config.RankPattern.Count == 0 ? config.RankPattern : [.. translator.Patterns(config.RankPattern)],
            AlphaPattern = config.AlphaPattern.Count == 0 ? config.AlphaPattern : [.. translator.Patterns(config.AlphaPattern)],
        };
        if (translator.Translated.Count > 0)
        {
            warnings = [$"Published names of modules are used under their names in the model: {string.Join("; ", translator.Translated)}."];
        }

        return translated;
    }

    /// <summary>Whether an entry of a target list means a module of a model, under its name in the tree or its published one.</summary>
    public static bool Matches(nn.Module root, string entry)
    {
        IModuleAliases? aliases = root as IModuleAliases;
        return ModuleTree.Places(root).Any(place =>
            ModuleSelector.MatchesEntry(entry, place.Name) || (aliases is not null && ModuleSelector.MatchesEntry(entry, aliases.Published(place.Name))));
    }

    private sealed class Translator(IModuleAliases aliases, string[] names, LoKrConfig config)
    {
        private readonly string[] _published = [.. names.Select(aliases.Published)];

        /// <summary>Translations: published name → name in the tree.</summary>
        public List<string> Translated { get; } = [];

        private bool HasLayerFilter => config.LayersToTransform is { Count: > 0 };

        /// <summary>A list of names, or an expression, that selects modules.</summary>
        /// <param name="selector">The selector, or null.</param>
        /// <param name="filtered">Whether layers_to_transform applies to it.</param>
        public ModuleSelector? Selector(ModuleSelector? selector, bool filtered)
        {
            if (selector is null || selector.IsAllLinear)
            {
                return selector;
            }

            if (selector.Pattern is string pattern)
            {
                string[] entries = Resolve(pattern, selector.CreateMatcher(), exact: filtered && HasLayerFilter);
                return entries.Length == 1 && entries[0] == pattern ? selector : ModuleSelector.FromNames(entries);
            }

            return ModuleSelector.FromNames(selector.Names!.SelectMany(entry => Resolve(
                entry,
                name => ModuleSelector.MatchesEntry(entry, name),
                exact: filtered && HasLayerFilter,
                chosen: filtered ? Chooses(entry) : null)).Distinct(StringComparer.Ordinal));
        }

        /// <summary>An entry of modules_to_save, which the end of a name decides.</summary>
        public string[] SavedModule(string entry) => Resolve(entry, name => name.EndsWith(entry, StringComparison.Ordinal), exact: false);

        /// <summary>Patterns with values; each may become several with the same value.</summary>
        public IEnumerable<KeyValuePair<string, T>> Patterns<T>(IEnumerable<KeyValuePair<string, T>> patterns) => patterns.SelectMany(pair =>
        {
            ModulePatterns<T> own = new([pair]);
            return Resolve(pair.Key, name => own.Unmatched([name]).Count == 0, exact: false).Select(key => KeyValuePair.Create(key, pair.Value));
        });

        /// <summary>Whether an entry of the target list means a module under its published name, layers_to_transform included.</summary>
        private Func<string, bool> Chooses(string entry)
        {
            TargetMatcher matcher = new(new LoKrConfig
            {
                TargetModules = ModuleSelector.FromNames([entry]),
                LayersToTransform = config.LayersToTransform,
                LayersPattern = config.LayersPattern,
            });
            return name => matcher.Check(name) == TargetMatcher.Verdict.Target;
        }

        /// <param name="entry">The entry.</param>
        /// <param name="matches">Whether it means a name.</param>
        /// <param name="exact">Full names, to which layers_to_transform does not apply, instead of short ones.</param>
        /// <param name="chosen">Whether it means a published name, where that is not <paramref name="matches"/>.</param>
        private string[] Resolve(string entry, Func<string, bool> matches, bool exact, Func<string, bool>? chosen = null)
        {
            if (names.Any(matches))
            {
                return [entry];
            }

            HashSet<string> meant = [.. names.Where((_, i) => (chosen ?? matches)(_published[i]))];
            if (meant.Count == 0)
            {
                return [entry];
            }

            string[] found = exact || meant.Count == 1 ? [.. meant] : ModuleEndings.Shortest(meant, names) ?? [.. meant];
            Translated.Add($"{entry} is {string.Join(", ", found)}");
            return found;
        }
    }
}
