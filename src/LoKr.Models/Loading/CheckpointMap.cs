using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using LoKr.Models.Families;

namespace LoKr.Models.Loading;

/// <summary>Which key of a checkpoint fills which parameter, which parameters are initialized and which keys are skipped. Every other difference is an error.</summary>
internal sealed class CheckpointMap
{
    private const int ListedKeys = 20;

    private CheckpointMap(IReadOnlyList<(string Key, string Parameter)> mapped, IReadOnlyList<string> fresh, IReadOnlyList<string> skipped)
    {
        Mapped = mapped;
        Fresh = fresh;
        Skipped = skipped;
    }

    /// <summary>Keys and the parameters they fill, in the order of the file.</summary>
    public IReadOnlyList<(string Key, string Parameter)> Mapped { get; }

    /// <summary>Parameters that the checkpoint may lack and does.</summary>
    public IReadOnlyList<string> Fresh { get; }

    /// <summary>Keys without a parameter in the model.</summary>
    public IReadOnlyList<string> Skipped { get; }

    /// <summary>Whether the checkpoint has published names; null where nothing in it has two names.</summary>
    public bool? HasPublishedNames { get; private init; }

    /// <summary>Rows of the classification head in a checkpoint, or null where it has no head of this architecture.</summary>
    public static long? HeadRows(ITensorSource source, ModelArchitecture architecture, ModelConfig config) =>
        architecture.Layout.LabelWeight is { } name && !HasForeignHead(architecture, config)
            && source.Entries.TryGetValue(name, out SafetensorsEntry? entry) && entry.Shape is [_, > 0]
            ? entry.Shape[0]
            : null;

    /// <summary>Maps a checkpoint, or throws <see cref="ErrorIds.CheckpointKeysMismatch"/> with every difference.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="parameters">Shapes of the model's parameters by name, tied duplicates left out.</param>
    /// <param name="tied">Tied duplicates: a checkpoint may hold them too.</param>
    /// <param name="architecture">The family.</param>
    /// <param name="config">The configuration.</param>
    public static CheckpointMap Create(
        ITensorSource source,
        IReadOnlyDictionary<string, long[]> parameters,
        IReadOnlyDictionary<string, string> tied,
        ModelArchitecture architecture,
        ModelConfig config)
    {
        CheckpointLayout layout = architecture.Layout;
        bool bare = IsBare(source, layout);
        bool foreignHead = HasForeignHead(architecture, config);
        List<(string Key, string Parameter)> mapped = [];
        Dictionary<string, string> filledBy = [];
        List<string> skipped = [];
        List<string> problems = [];

        foreach (SafetensorsEntry entry in source.Entries.Values)
        {
            string name = Translate(entry.Name, layout, bare, key => parameters.ContainsKey(key) || tied.ContainsKey(key));
            if (foreignHead && StartsWithAny(name, layout.HeadPrefixes))
            {
                skipped.Add(entry.Name);
            }
            else if (parameters.TryGetValue(name, out long[]? shape))
            {
                if (!filledBy.TryAdd(name, entry.Name))
                {
                    problems.Add($"{entry.Name}: is the same parameter as {filledBy[name]}");
                }
                else if (!entry.Shape.SequenceEqual(shape))
                {
                    problems.Add($"{entry.Name}: is [{string.Join(", ", entry.Shape)}], the model's [{string.Join(", ", shape)}]");
                }
                else
                {
                    mapped.Add((entry.Name, name));
                }
            }
            else if (StartsWithAny(name, layout.SkippedPrefixes) || (layout.IsBare && !bare && !entry.Name.StartsWith(layout.BasePrefix, StringComparison.Ordinal)))
            {
                skipped.Add(entry.Name);
            }
            else if (!tied.ContainsKey(name) && !layout.SkippedSuffixes.Any(suffix => name.EndsWith(suffix, StringComparison.Ordinal)))
            {
                problems.Add($"{entry.Name}: the model has no such parameter");
            }
        }

        // A head is initialized as a whole or not at all: half a head in the file is a damaged file.
        bool hasHead = filledBy.Keys.Any(name => StartsWithAny(name, layout.HeadPrefixes));
        List<string> fresh = [];
        foreach (string name in parameters.Keys.Where(name => !filledBy.ContainsKey(name)))
        {
            bool isOptional = (!hasHead && StartsWithAny(name, layout.HeadPrefixes))
                || layout.OptionalPrefixes.Any(prefix => name.StartsWith(prefix, StringComparison.Ordinal)
                    && !filledBy.Keys.Any(other => other.StartsWith(prefix, StringComparison.Ordinal)));
            if (isOptional)
            {
                fresh.Add(name);
            }
            else
            {
                problems.Add($"{name}: the checkpoint has no such tensor");
            }
        }

        return problems.Count == 0
            ? new CheckpointMap(mapped, fresh, skipped) { HasPublishedNames = FindGeneration(mapped, layout) }
            : throw Mismatch(problems, architecture, config);
    }

    /// <summary>Whether a checkpoint is of a model without its head.</summary>
    public static bool IsBare(ITensorSource source, CheckpointLayout layout) =>
        layout.BasePrefix.Length > 0 && !source.Entries.Keys.Any(key => key.StartsWith(layout.BasePrefix, StringComparison.Ordinal));

    private static bool? FindGeneration(List<(string Key, string Parameter)> mapped, CheckpointLayout layout)
    {
        List<(string Key, string Parameter)> twofold = layout.Names is { } names ? [.. mapped.Where(item => names.Published(item.Parameter) != item.Parameter)] : [];
        return twofold.Count == 0 ? null : twofold.Exists(item => item.Parameter != item.Key && item.Parameter != layout.BasePrefix + item.Key);
    }

    // A head for another task (tokens, questions) has the same names but another meaning.
    private static bool HasForeignHead(ModelArchitecture architecture, ModelConfig config)
    {
        IReadOnlyList<string> names = config.GetStrings("architectures");
        return architecture.Layout.HeadPrefixes.Count > 0 && names.Count > 0 && !names.Contains(architecture.Name, StringComparer.Ordinal);
    }

    private static string Translate(string key, CheckpointLayout layout, bool bare, Func<string, bool> isKnown)
    {
        string name = key;
        foreach ((string old, string current) in layout.RenamedSuffixes)
        {
            if (name.EndsWith(old, StringComparison.Ordinal))
            {
                name = name[..^old.Length] + current;
            }
        }

        if (layout.IsBare)
        {
            return !bare && name.StartsWith(layout.BasePrefix, StringComparison.Ordinal) ? name[layout.BasePrefix.Length..] : name;
        }

        bool prefixed = !bare || isKnown(name) || StartsWithAny(name, layout.HeadPrefixes) || StartsWithAny(name, layout.SkippedPrefixes);
        name = prefixed ? name : layout.BasePrefix + name;
        return layout.Names?.Canonical(name) ?? name;
    }

    private static bool StartsWithAny(string name, IReadOnlyList<string> prefixes) => prefixes.Any(prefix => name.StartsWith(prefix, StringComparison.Ordinal));

    private static LoKrException Mismatch(List<string> problems, ModelArchitecture architecture, ModelConfig config)
    {
        string list = string.Join("; ", problems.Take(ListedKeys));
        string more = problems.Count > ListedKeys ? $"; and {problems.Count - ListedKeys} more" : "";
        return new LoKrException(ErrorIds.CheckpointKeysMismatch, LoKrErrorKind.InvalidData,
            $"The weights do not fit the {architecture.Name} that '{config.Source}' describes: {list}{more}.",
            "Are config.json and the weights of the same model?") { Target = config.Source };
    }
}
