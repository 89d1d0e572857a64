using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Layouts;

/// <summary>Detects the layout of a file and sorts its tensors by module.</summary>
internal sealed class AdapterFileParser
{
    private readonly List<LoKrAdapterFinding> _findings = [];
    private readonly Dictionary<string, string> _saved = new(StringComparer.Ordinal);
    private readonly List<AdapterForeignTensor> _foreign = [];

    private readonly bool _isMixed;

    private AdapterFileParser(AdapterLayout layout, bool isMixed) => (Layout, _isMixed) = (layout, isMixed);

    /// <summary>The layout.</summary>
    public AdapterLayout Layout { get; }

    /// <summary>Modules in the order of the header.</summary>
    public IReadOnlyList<AdapterFileModule> Modules { get; private set; } = [];

    /// <summary>Tensors of modules that are saved whole: name → name in the file.</summary>
    public IReadOnlyDictionary<string, string> SavedTensors => _saved;

    /// <summary>Tensors of other kinds of adapters beside the factors.</summary>
    public IReadOnlyList<AdapterForeignTensor> Foreign => _foreign;

    /// <summary>Problems with the names.</summary>
    public IReadOnlyList<LoKrAdapterFinding> Findings => _findings;

    /// <summary>Reads the names of a file.</summary>
    /// <param name="reader">The file.</param>
    /// <param name="given">The layout, or null to detect it.</param>
    /// <param name="configs">Configurations of the file.</param>
    public static AdapterFileParser Parse(SafetensorsReader reader, AdapterLayout? given, AdapterFileConfigs configs)
    {
        NamedEntry[] keys = [.. reader.Entries.Values.Where(entry => !WrapperCopies.IsCopy(entry.Name, reader.Entries.ContainsKey)).Select(static entry => new NamedEntry(AdapterKey.Split(entry.Name), entry))];
        bool isMixed = IsMixed(keys);
        AdapterLayout? stored = given is null ? Stored(keys, configs) : null;

        // Where ComfyUI reads a model's rows under another program's prefix only, this library writes that into a file of its layout.
        AdapterFileParser parser = new(given ?? stored ?? (isMixed ? AdapterLayout.Comfy : Detect(keys, configs)), isMixed || stored is not null);
        parser.Sort(keys, reader);
        return parser;
    }

    /// <summary>The layout that this library stored in the header, unless another program has renamed the tensors since.</summary>
    private static AdapterLayout? Stored(NamedEntry[] keys, AdapterFileConfigs configs) => configs.Layout is AdapterLayout layout
        && Array.TrueForAll(keys, pair => pair.Key.Suffix.Length == 0 || pair.Key.TryStrip(layout, out _, isMixed: true)) ? layout : null;

    /// <summary>Whether names of several programs stand side by side as ComfyUI reads them: its own names do not divide every model as others do.</summary>
    private static bool IsMixed(NamedEntry[] keys)
    {
        NamedEntry[] factors = [.. keys.Where(static pair => pair.Key.Suffix.Length > 0)];
        HashSet<AdapterLayout> guesses = [.. factors.Select(static pair => pair.Key.Guess())];
        return guesses.Contains(AdapterLayout.Comfy) && guesses.Count > 1 && guesses.IsSubsetOf([AdapterLayout.Comfy, AdapterLayout.Diffusers, AdapterLayout.Kohya, AdapterLayout.OneTrainer, AdapterLayout.Peft, AdapterLayout.Lycoris])
            && ModelRecognizer.OfAdapter(factors.Select(static pair => pair.Key.Module)) is not null;
    }

    private static AdapterLayout Detect(NamedEntry[] keys, AdapterFileConfigs configs)
    {
        // Names of adapter tensors indicate the layout; the others count only where there are none of these.
        bool hasFactors = Array.Exists(keys, static pair => pair.Key.Suffix.Length > 0);
        HashSet<AdapterLayout> guesses = [.. keys.Where(pair => !hasFactors || pair.Key.Suffix.Length > 0).Select(static pair => pair.Key.Guess())];
        return configs.IsDiffusersModel && guesses.IsSubsetOf([AdapterLayout.Bare, AdapterLayout.Diffusers]) ? AdapterLayout.DiffusersModel
            : guesses.Count == 1 && !guesses.Contains(AdapterLayout.Bare) ? guesses.First()
            : guesses.SetEquals([AdapterLayout.Kohya, AdapterLayout.OneTrainer]) ? AdapterLayout.OneTrainer

            // A model may have modules with the names of parts of a pipeline.
            : guesses.IsSubsetOf([AdapterLayout.Bare, AdapterLayout.Diffusers]) ? configs.IsDiffusers ? AdapterLayout.DiffusersModel : AdapterLayout.Bare

            // Mixed: the first decides, and the rest is reported.
            : guesses.First();
    }

    private void Sort(NamedEntry[] keys, SafetensorsReader reader)
    {
        Dictionary<(AdapterComponent, string), Dictionary<string, SafetensorsEntry>> modules = [];
        Dictionary<(AdapterComponent, string), string?> adapters = [];
        Dictionary<(AdapterComponent, string, string), SafetensorsEntry> others = [];
        foreach ((AdapterKey split, SafetensorsEntry entry) in keys)
        {
            if (AdapterSuffixes.Foreign.TryGetValue(split.Suffix, out string? kind))
            {
                AdapterKey foreign = TryStrip(split with { AdapterName = Layout == AdapterLayout.PeftInMemory ? split.AdapterName ?? "" : null }, out AdapterKey stripped) ? stripped : split;
                string rest = entry.Name[(split.ModuleEnd(entry.Name) + 1)..];
                if (others.TryAdd((foreign.Component, foreign.Module, AdapterSuffixes.Part(rest)), entry))
                {
                    _foreign.Add(new(foreign.Component, foreign.Module, rest, kind, entry));
                }
                else
                {
                    Same(entry, others[(foreign.Component, foreign.Module, AdapterSuffixes.Part(rest))], split.Suffix, foreign.Module);
                }

                continue;
            }

            if (!TryStrip(split, out AdapterKey key))
            {
                Misnamed(split, entry);
                continue;
            }

            if (key.Suffix.Length == 0)
            {
                Save(key, entry);
                continue;
            }

            (AdapterComponent, string) module = (key.Component, key.Module);
            if (!modules.TryGetValue(module, out Dictionary<string, SafetensorsEntry>? tensors))
            {
                modules.Add(module, tensors = new(StringComparer.Ordinal));
                adapters.Add(module, key.AdapterName);
            }

            if (!tensors.TryAdd(key.Suffix, entry))
            {
                Same(entry, tensors[key.Suffix], key.Suffix, key.Module);
            }
        }

        if (adapters.Values.Distinct(StringComparer.Ordinal).Count() > 1)
        {
            Problem(ErrorIds.AdapterLayoutMixed, $"The file holds several adapters: {string.Join(", ", adapters.Values.Distinct(StringComparer.Ordinal))}. Split it into one file for each.", reader.FilePath);
        }

        TakeCompanions(modules);
        Modules = [.. Complete(modules, reader)];
        if (Modules.Count == 0 && _findings.Count == 0 && _saved.Count == 0 && _foreign.Count == 0)
        {
            Problem(ErrorIds.AdapterTypeNotSupported, $"'{reader.FilePath}' holds no LoKr factors. Name a file with tensors called lokr_w1, lokr_w2 and so on.", reader.FilePath);
        }
    }

    /// <summary>An alpha beside factors of another kind belongs to them.</summary>
    private void TakeCompanions(Dictionary<(AdapterComponent, string), Dictionary<string, SafetensorsEntry>> modules)
    {
        foreach (IGrouping<(AdapterComponent, string), AdapterForeignTensor> module in _foreign.GroupBy(static tensor => (tensor.Component, tensor.Module)).ToArray())
        {
            if (modules.TryGetValue(module.Key, out Dictionary<string, SafetensorsEntry>? tensors) && tensors.Keys.All(AdapterSuffixes.Companions.Contains))
            {
                modules.Remove(module.Key);
                _foreign.AddRange(tensors.Select(pair => new AdapterForeignTensor(module.Key.Item1, module.Key.Item2, pair.Key, module.First().Kind, pair.Value)));
            }
        }
    }

    private bool TryStrip(AdapterKey split, out AdapterKey key)
    {
        if (Layout is AdapterLayout.Bare or AdapterLayout.DiffusersModel || (Layout == AdapterLayout.Hcp && split.Suffix.Length == 0))
        {
            key = split;
            return split.Guess() is AdapterLayout.Bare or AdapterLayout.Diffusers;
        }

        // Both forms of PEFT's names have the prefix.
        return split.TryStrip(Layout, out key, _isMixed) && (!AdapterLayouts.IsPeft(Layout) || split.Suffix.Length == 0 || (split.AdapterName is null) == (Layout == AdapterLayout.Peft));
    }

    private void Misnamed(AdapterKey split, SafetensorsEntry entry)
    {
        AdapterLayout other = split.Guess();
        if (split.Suffix.Length > 0 && other != Layout)
        {
            Problem(ErrorIds.AdapterLayoutMixed, $"'{entry.Name}' is named as in the layout {other}, but the file has the layout {Layout}. Split the file by layout, or give the layout if the names are misleading.", entry.Name);
        }
        else
        {
            Problem(ErrorIds.AdapterKeyInvalid, $"'{entry.Name}' does not have the form of the layout {Layout}. Get the file again, or ask its author.", entry.Name);
        }
    }

    private void Save(AdapterKey key, SafetensorsEntry entry)
    {
        if (AdapterLayouts.IsPeft(Layout) && !IsUnknownFactor(key))
        {
            if (!_saved.TryAdd(key.Module, entry.Name))
            {
                Problem(ErrorIds.AdapterKeyInvalid, $"'{entry.Name}' and '{_saved[key.Module]}' are the same tensor '{key.Module}'. Keep one of the two.", entry.Name);
            }

            return;
        }

        Problem(ErrorIds.AdapterKeyInvalid, $"'{entry.Name}' is not part of a LoKr adapter in the layout {Layout}. Remove it from the file, or get a file without it.", entry.Name);
    }

    // A module may be called lokr_…; a parameter of that name is a factor of another kind. In memory the adapter's name follows it.
    private bool IsUnknownFactor(AdapterKey key)
    {
        string[] parts = key.Module.Split('.');
        return FactorNames.IsFactor(parts[^1]) || (Layout == AdapterLayout.PeftInMemory && key.AdapterName is null && parts.Length > 1 && FactorNames.IsFactor(parts[^2]));
    }

    private IEnumerable<AdapterFileModule> Complete(Dictionary<(AdapterComponent Component, string Name), Dictionary<string, SafetensorsEntry>> modules, SafetensorsReader reader)
    {
        foreach (((AdapterComponent component, string name), Dictionary<string, SafetensorsEntry> tensors) in modules)
        {
            // A parameter of a module that is saved whole may be called alpha.
            if (AdapterLayouts.IsPeft(Layout) && tensors.Keys.All(AdapterSuffixes.Companions.Contains))
            {
                foreach ((string suffix, SafetensorsEntry entry) in tensors)
                {
                    Save(new(component, $"{name}.{suffix}", "", null), entry);
                }

                continue;
            }

            double? alpha = tensors.TryGetValue(AdapterSuffixes.Alpha, out SafetensorsEntry? stored) && stored.Shape.All(static size => size == 1) ? reader.ReadNumber(stored.Name) : null;
            yield return new(component, name, tensors, alpha);
        }
    }

    private void Same(SafetensorsEntry entry, SafetensorsEntry other, string suffix, string module) =>
        Problem(ErrorIds.AdapterKeyInvalid, $"'{entry.Name}' and '{other.Name}' are the same tensor '{suffix}' of '{module}'. The file holds several adapters or was assembled by hand; keep one of the two.", entry.Name);

    private void Problem(string id, string message, string target) => _findings.Add(new(LoKrFindingSeverity.Error, id, message, target));

    private sealed record NamedEntry(AdapterKey Key, SafetensorsEntry Entry);
}
