using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>Decides from the files alone what every tensor of a checkpoint becomes, and says what does not fit.</summary>
internal sealed class MergeMatcher
{
    private static readonly string[] s_suffixes =
    [
        FactorNames.W1, FactorNames.W1A, FactorNames.W1B, FactorNames.W2, FactorNames.W2A, FactorNames.W2B, FactorNames.T2,
        FactorNames.Scalar, FactorNames.DoraScale,
    ];

    private readonly CheckpointReader _source;
    private readonly IModuleAliases? _aliases;
    private readonly TransposedWeights _transposed;
    private readonly TiedEmbeddings _tied;
    private readonly SafetensorsDType _usualType;
    private readonly Dictionary<string, List<MergeContribution>> _contributions = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<(ITensorSource Source, string Key, double Strength)>> _changes = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (string Adapter, ITensorSource Source, string Key)> _replacements = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (string Adapter, ITensorSource Source, string Key)> _added = new(StringComparer.Ordinal);
    private readonly HashSet<string> _savedModules = new(StringComparer.Ordinal);
    private string _prepended = "";

    /// <summary>Starts with a checkpoint.</summary>
    /// <param name="source">The checkpoint.</param>
    /// <param name="config">Its configuration.</param>
    /// <param name="aliases">Published names, or null.</param>
    public MergeMatcher(CheckpointReader source, BaseConfig config, IModuleAliases? aliases)
    {
        _source = source;
        _aliases = aliases;
        _transposed = new TransposedWeights(source.Entries, config.ModelType);
        _tied = new TiedEmbeddings(source, config);
        _usualType = source.Entries.Values.Where(static entry => IsWeightType(entry.DType)).GroupBy(static entry => entry.DType)
            .OrderByDescending(static group => group.Sum(entry => entry.ByteCount)).FirstOrDefault()?.Key ?? SafetensorsDType.F32;
    }

    /// <summary>Weights that change.</summary>
    public int ChangedCount => _contributions.Keys.Union(_changes.Keys).Count();

    /// <summary>Deltas and changes of norms in all; a weight may get several.</summary>
    public int ContributionCount => _contributions.Values.Sum(static list => list.Count) + _changes.Values.Sum(static list => list.Count);

    /// <summary>Modules that adapters bring whole.</summary>
    public int SavedModuleCount => _savedModules.Count;

    /// <summary>Tensors that the checkpoint lacks and an adapter brings, by name.</summary>
    public IReadOnlyDictionary<string, IReadOnlyList<long>> Added => _added.ToDictionary(static pair => pair.Key, static pair => pair.Value.Source.Entries[pair.Value.Key].Shape, StringComparer.Ordinal);

    /// <summary>Takes an adapter.</summary>
    /// <param name="name">Its name, for errors.</param>
    /// <param name="config">Its configuration.</param>
    /// <param name="tensors">Its tensors, named without a prefix.</param>
    /// <param name="strength">Its strength.</param>
    /// <exception cref="LoKrException">Its tensors do not fit; all of those are named.</exception>
    public void Add(string name, LoKrConfig config, ITensorSource tensors, double strength)
    {
        LoKrConfigValidator.Validate(config);
        string[] modules = [.. tensors.Entries.Keys.Where(static key => Suffix(key) is string suffix && suffix.StartsWith("lokr_", StringComparison.Ordinal))
            .Select(Module).Distinct(StringComparer.Ordinal)];
        HashSet<string> adapted = [.. modules];
        string[] norms = [.. tensors.Entries.Keys.Where(static key => NormParameter(key) is not null)];
        CheckpointNames names = CheckpointNames.Match([.. _source.Entries.Keys], [.. modules.Union(norms.Select(Module), StringComparer.Ordinal)], _aliases);
        Dictionary<string, long[]> expected = new(StringComparer.Ordinal);
        List<string> unmatched = [];
        foreach (string module in modules)
        {
            if (names.Find(module + ".weight") is string key)
            {
                AddLayer(name, config, tensors, strength, module, _source.Entries[key], expected);
            }
            else
            {
                CheckTied(module);
                unmatched.AddRange(tensors.Entries.Keys.Where(other => Suffix(other) is not null && Module(other) == module));
            }
        }

        foreach (string key in norms)
        {
            if (names.Find($"{Module(key)}.{NormParameter(key)}") is string parameter)
            {
                AddNorm(name, tensors, strength, key, _source.Entries[parameter], expected);
            }
            else
            {
                unmatched.Add(key);
            }
        }

        foreach (string key in tensors.Entries.Keys.Where(key => NormParameter(key) is null && (Suffix(key) is null || !adapted.Contains(Module(key)))))
        {
            if (!AddSaved(name, config, tensors, key, names, expected))
            {
                unmatched.Add(key);
            }
        }

        CheckMatched(name, unmatched, modules);
        AdapterLoader.Check(name, expected, tensors.Entries.ToDictionary(static pair => pair.Key, static pair => pair.Value.Shape, StringComparer.Ordinal));
        _prepended = names.Prepended.Length > 0 ? names.Prepended : _prepended;
    }

    /// <summary>What the tensors of a file of the checkpoint become, in the order of their bytes.</summary>
    public IReadOnlyList<MergeTarget> Targets(SafetensorsReader shard) => [.. shard.Entries.Values.OrderBy(static entry => entry.Offset).ThenBy(static entry => entry.ByteCount)
        .Select(entry => new MergeTarget(Rename(entry.Name), entry.DType, entry.Shape)
        {
            Shard = shard,
            Entry = entry,
            Contributions = _contributions.TryGetValue(entry.Name, out List<MergeContribution>? contributions) ? contributions : [],
            Changes = _changes.TryGetValue(entry.Name, out List<(ITensorSource Source, string Key, double Strength)>? changes) ? changes : [],
            Replacement = _replacements.TryGetValue(entry.Name, out (string Adapter, ITensorSource Source, string Key) saved) ? (saved.Source, saved.Key) : null,
        })];

    /// <summary>Tensors that adapters add.</summary>
    public IReadOnlyList<MergeTarget> AddedTargets() => [.. _added.OrderBy(static pair => pair.Key, StringComparer.Ordinal).Select(pair =>
    {
        SafetensorsEntry given = pair.Value.Source.Entries[pair.Value.Key];
        return new MergeTarget(pair.Key, IsWeightType(given.DType) ? _usualType : given.DType, given.Shape) { Replacement = (pair.Value.Source, pair.Value.Key) };
    })];

    // A bare model becomes one with a head: names that readers find have its prefix then.
    private string Rename(string key) => _added.Count > 0 ? _prepended + key : key;

    private void AddLayer(string name, LoKrConfig config, ITensorSource tensors, double strength, string module, SafetensorsEntry weight, Dictionary<string, long[]> expected)
    {
        CheckTied(module);
        if (_replacements.TryGetValue(weight.Name, out (string Adapter, ITensorSource Source, string Key) saved))
        {
            throw Conflict(weight.Name, saved.Adapter, name);
        }

        if (!IsWeightType(weight.DType) || weight.Shape.Count < 2 || weight.ByteCount == 0)
        {
            throw NotMergeable(weight);
        }

        (long rows, long columns) = Size(tensors, module, weight);
        bool isTransposed = _transposed.Contains(weight, rows, columns);
        (long outFeatures, long inFeatures) = isTransposed ? (weight.Shape[1], weight.Shape[0]) : (weight.Shape[0], weight.Shape[1]);
        long[] kernel = [.. weight.Shape.Skip(2)];
        int rank = ModulePatterns.Find(config.RankPattern, module, config.R);
        LoKrConfigValidator.CheckRank(rank, $"the rank of '{module}'");
        double alpha = ModulePatterns.Find(config.AlphaPattern, module, config.Alpha);
        FactorShapes shapes = FactorShapes.Create(outFeatures, inFeatures, kernel, rank, config);
        (string Suffix, long[] Shape)[] list = [.. LayerTensors.List(shapes, config, outFeatures, inFeatures)];
        foreach ((string suffix, long[] shape) in list)
        {
            expected.Add($"{module}.{suffix}", shape);
        }

        MergeContribution contribution = new(tensors, config, module, shapes, list, LoKrScaling.Compute(config, rank, alpha, shapes.BothFull), strength, isTransposed);
        if (!_contributions.TryGetValue(weight.Name, out List<MergeContribution>? contributions))
        {
            _contributions.Add(weight.Name, contributions = []);
        }

        contributions.Add(contribution);
    }

    private void AddNorm(string name, ITensorSource tensors, double strength, string key, SafetensorsEntry parameter, Dictionary<string, long[]> expected)
    {
        if (!IsWeightType(parameter.DType) || parameter.ByteCount == 0)
        {
            throw NotMergeable(parameter);
        }

        if (_replacements.TryGetValue(parameter.Name, out (string Adapter, ITensorSource Source, string Key) saved))
        {
            throw Conflict(parameter.Name, saved.Adapter, name);
        }

        expected.Add(key, [.. parameter.Shape]);
        if (!_changes.TryGetValue(parameter.Name, out List<(ITensorSource Source, string Key, double Strength)>? changes))
        {
            _changes.Add(parameter.Name, changes = []);
        }

        changes.Add((tensors, key, strength));
    }

    private bool AddSaved(string name, LoKrConfig config, ITensorSource tensors, string key, CheckpointNames names, Dictionary<string, long[]> expected)
    {
        CheckTied(Module(key));
        SafetensorsEntry given = tensors.Entries[key];
        if (names.Find(key) is not string stored)
        {
            if (!IsNewHead(config, key, names))
            {
                return false;
            }

            if (!_added.TryAdd(key, (name, tensors, key)))
            {
                throw Conflict(key, _added[key].Adapter, name);
            }

            expected.Add(key, [.. given.Shape]);
            _savedModules.Add(SavedModule(config, key));
            return true;
        }

        SafetensorsEntry entry = _source.Entries[stored];
        expected.Add(key, [.. entry.Shape]);
        if (_contributions.ContainsKey(stored) || _changes.ContainsKey(stored))
        {
            throw Conflict(stored, name, "another");
        }

        if (!SafetensorsDTypes.IsSameLayout(entry.DType) || !SafetensorsDTypes.CanConvert(SafetensorsDTypes.Natural(given.DType), SafetensorsDTypes.Natural(entry.DType)))
        {
            throw new LoKrException(ErrorIds.TensorDTypeMismatch, LoKrErrorKind.InvalidData,
                $"'{key}' of adapter '{name}' is {SafetensorsDTypes.Name(given.DType)}, which cannot take the place of {SafetensorsDTypes.Name(entry.DType)} in the checkpoint.",
                "Use the model's float32, float16 or bfloat16 weights.") { Target = key };
        }

        if (!_replacements.TryAdd(stored, (name, tensors, key)))
        {
            throw Conflict(stored, _replacements[stored].Adapter, name);
        }

        _savedModules.Add(SavedModule(config, key));
        return true;
    }

    // A head that the checkpoint of a bare model does not have: a module at the root that the configuration trains whole.
    private static bool IsNewHead(LoKrConfig config, string key, CheckpointNames names)
    {
        string root = key.Split('.')[0];
        IEnumerable<string> saved = (config.ModulesToSave ?? []).Concat(TargetResolver.TaskHead(config.TaskType));
        return saved.Contains(root, StringComparer.Ordinal) && root + "." != names.Prepended;
    }

    /// <summary>The module that is saved whole and that a tensor belongs to: the outermost one that the configuration names.</summary>
    private static string SavedModule(LoKrConfig config, string key)
    {
        string[] saved = [.. (config.ModulesToSave ?? []).Concat(TargetResolver.TaskHead(config.TaskType))];
        for (int dot = key.IndexOf('.', StringComparison.Ordinal); dot >= 0; dot = key.IndexOf('.', dot + 1))
        {
            if (saved.Any(entry => key.AsSpan(0, dot).EndsWith(entry, StringComparison.Ordinal)))
            {
                return key[..dot];
            }
        }

        return Module(key);
    }

    /// <summary>Rows and columns of the delta, from the factors; those of the weight where the factors are not complete.</summary>
    private static (long Rows, long Columns) Size(ITensorSource tensors, string module, SafetensorsEntry weight)
    {
        IReadOnlyList<long>? Shape(string suffix) => tensors.Entries.GetValueOrDefault($"{module}.{suffix}")?.Shape is { Count: >= 2 } shape ? shape : null;
        IReadOnlyList<long>? w1a = Shape(FactorNames.W1) ?? Shape(FactorNames.W1A);
        IReadOnlyList<long>? w1b = Shape(FactorNames.W1) ?? Shape(FactorNames.W1B);
        IReadOnlyList<long>? w2a = Shape(FactorNames.W2) ?? Shape(FactorNames.W2A);
        IReadOnlyList<long>? w2b = Shape(FactorNames.W2) ?? Shape(FactorNames.W2B);
        return w1a is null || w1b is null || w2a is null || w2b is null
            ? (weight.Shape[0], weight.Shape[1])
            : (w1a[0] * w2a[0], w1b[1] * w2b[1]);
    }

    private void CheckTied(string module)
    {
        if (_tied.Partner(module) is string partner)
        {
            throw new LoKrException(ErrorIds.TiedWeight, LoKrErrorKind.NotSupported,
                $"'{module}' shares its weight with '{partner}': merging the adapter would change both.",
                "Leave the adapter unmerged, or train it without this module.") { Target = module };
        }
    }

    private void CheckMatched(string name, List<string> unmatched, string[] modules)
    {
        if (unmatched.Count > 0)
        {
            string example = _source.Entries.Keys.FirstOrDefault(key => modules.Any(module => key.EndsWith(module[(module.LastIndexOf('.') + 1)..] + ".weight", StringComparison.Ordinal)))
                ?? _source.Entries.Keys.First();
            throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"{unmatched.Count} tensors of adapter '{name}' have no place in the checkpoint '{_source.Folder}': {string.Join("; ", unmatched.Order(StringComparer.Ordinal))}.",
                $"The adapter was made for another model; names of this one look like '{example}'.") { Target = unmatched[0] };
        }
    }

    private LoKrException NotMergeable(SafetensorsEntry weight) => new(ErrorIds.TensorDTypeMismatch, LoKrErrorKind.InvalidData,
        $"'{weight.Name}' in '{_source.Folder}' is {SafetensorsDTypes.Name(weight.DType)} [{string.Join(", ", weight.Shape)}], to which no delta can be added.",
        "Quantized checkpoints cannot be merged into; use the model's float32, float16 or bfloat16 weights.") { Target = weight.Name };

    private static LoKrException Conflict(string key, string first, string second) => new(
        ErrorIds.SavedModuleConflict, LoKrErrorKind.InvalidArgument,
        $"The adapters '{first}' and '{second}' both change '{key}', and one of them replaces it whole.", "Merge one of them.") { Target = key };

    /// <summary>The parameter of a norm that a tensor changes, or null.</summary>
    private static string? NormParameter(string key) => key.EndsWith("." + LoKrNorm.WeightSuffix, StringComparison.Ordinal) ? "weight"
        : key.EndsWith("." + LoKrNorm.BiasSuffix, StringComparison.Ordinal) ? "bias"
        : null;

    private static string? Suffix(string key) => s_suffixes.FirstOrDefault(suffix => key.EndsWith("." + suffix, StringComparison.Ordinal));

    private static string Module(string key) => key[..Math.Max(key.LastIndexOf('.'), 0)];

    private static bool IsWeightType(SafetensorsDType type) => type is SafetensorsDType.F16 or SafetensorsDType.BF16 or SafetensorsDType.F32 or SafetensorsDType.F64;
}

/// <summary>One tensor of the result and what becomes of it.</summary>
/// <param name="Name">Its name in the result.</param>
/// <param name="DType">Its element type.</param>
/// <param name="Shape">Its shape.</param>
internal sealed record MergeTarget(string Name, SafetensorsDType DType, IReadOnlyList<long> Shape)
{
    /// <summary>The file of the base it comes from, or null for a tensor that an adapter adds.</summary>
    public SafetensorsReader? Shard { get; init; }

    /// <summary>The tensor of the base, or null for one that an adapter adds.</summary>
    public SafetensorsEntry? Entry { get; init; }

    /// <summary>Deltas to add, in order.</summary>
    public IReadOnlyList<MergeContribution> Contributions { get; init; } = [];

    /// <summary>Changes of a norm's weight or bias to add, with their strength.</summary>
    public IReadOnlyList<(ITensorSource Source, string Key, double Strength)> Changes { get; init; } = [];

    /// <summary>The adapter's tensor that takes its place, or null.</summary>
    public (ITensorSource Source, string Key)? Replacement { get; init; }

    /// <summary>Whether its bytes are those of the base.</summary>
    public bool IsCopy => Contributions.Count == 0 && Changes.Count == 0 && Replacement is null;

    /// <summary>Name, type and shape for a header.</summary>
    public SafetensorsHeaderItem Header => new(Name, DType, Shape);
}

/// <summary>One adapter's part in one weight of a checkpoint; its factors are read when the weight is merged.</summary>
/// <param name="Source">Tensors of the adapter.</param>
/// <param name="Config">Configuration of the adapter.</param>
/// <param name="Module">Name of the module in the adapter.</param>
/// <param name="Shapes">Shapes of the factors.</param>
/// <param name="Tensors">Suffixes and shapes of the layer's tensors.</param>
/// <param name="Scaling">What w1 ⊗ w2 is multiplied with, as trained.</param>
/// <param name="Strength">Strength of the adapter.</param>
/// <param name="IsTransposed">Whether the weight is stored in×out.</param>
internal sealed record MergeContribution(
    ITensorSource Source,
    LoKrConfig Config,
    string Module,
    FactorShapes Shapes,
    IReadOnlyList<(string Suffix, long[] Shape)> Tensors,
    double Scaling,
    double Strength,
    bool IsTransposed)
{
    /// <summary>Rows of the stored weight that share a row of the outer factor.</summary>
    public long Group => RowBlock.GroupOf(IsTransposed, Shapes.Reversed, Shapes.L, Shapes.K, Shapes.N);

    /// <summary>Reads the factors.</summary>
    /// <param name="type">Type in which they are applied.</param>
    public LayerDelta Read(ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        foreach ((string suffix, long[] shape) in Tensors)
        {
            string key = $"{Module}.{suffix}";
            if (Source.Entries.ContainsKey(key))
            {
                tensors.Add(suffix, Source.Read(key, type).reshape(shape));
            }
        }

        return new LayerDelta(new KroneckerFactors(tensors, Shapes.Kernel, Shapes.Reversed), Config, Scaling, Strength, IsTransposed);
    }
}
