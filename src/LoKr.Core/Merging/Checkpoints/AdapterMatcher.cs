using System.Globalization;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Runtime;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>Finds the tensors of a checkpoint that one adapter changes, from the files alone, and reports every tensor that does not fit.</summary>
internal sealed class AdapterMatcher
{
    private readonly CheckpointTraits _checkpoint;
    private readonly CheckpointMergeAdapter _adapter;
    private readonly ModuleRanks _ranks;
    private readonly MergePlan _plan;
    private readonly LoKrConfig _config;
    private readonly IReadOnlyList<string> _tables;
    private readonly AdapterKeys _keys;
    private readonly CheckpointNames _names;
    private readonly Dictionary<string, long[]> _expected = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> _weights = new(StringComparer.Ordinal);
    private readonly List<string> _unmatched = [];
    private readonly Dictionary<string, SafetensorsEntry> _copies = new(StringComparer.Ordinal);
    private readonly List<string> _warnings = [];
    private readonly Lazy<string[]> _sorted;
    private AdapterTensor? _tied;

    private AdapterMatcher(CheckpointTraits checkpoint, CheckpointMergeAdapter adapter, MergePlan plan)
    {
        (_checkpoint, _adapter, _plan) = (checkpoint, adapter, plan);
        SavedEmbeddings embeddings = SavedEmbeddings.Find(adapter.Config!, adapter.Tensors.Entries.Keys);
        (_config, _tables) = (embeddings.Config, embeddings.Modules);
        _warnings.AddRange(embeddings.Warnings);
        _ranks = new(_config);
        _keys = new AdapterKeys(adapter);
        _names = CheckpointNames.Match([.. checkpoint.Entries.Keys], _keys.AdaptedModules, checkpoint.Aliases);
        _sorted = new(() => [.. checkpoint.Entries.Keys.SelectMany(_names.InAdapter).Order(StringComparer.Ordinal)]);
    }

    /// <summary>Puts the changes of an adapter into a plan.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="adapter">The adapter.</param>
    /// <param name="plan">The plan.</param>
    /// <returns>Warnings about the adapter on this checkpoint.</returns>
    /// <exception cref="LoKrException">Tensors do not fit; all of those are named.</exception>
    public static IReadOnlyList<string> Match(CheckpointTraits checkpoint, CheckpointMergeAdapter adapter, MergePlan plan)
    {
        LoKrConfigValidator.ValidateStored(adapter.Config!);
        AdapterMatcher matcher = new(checkpoint, adapter, plan);
        matcher.Match();
        return matcher._warnings;
    }

    /// <summary>Number of modules of an adapter that a checkpoint has, under the names that fit most of them.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="adapter">The adapter.</param>
    /// <returns>The number, and whether these are all of them.</returns>
    /// <exception cref="LoKrException"><c>LoKr.AdapterKeysMismatch</c>: the modules fit several parts of the checkpoint.</exception>
    public static (int Found, bool All) Count(CheckpointTraits checkpoint, CheckpointMergeAdapter adapter)
    {
        IReadOnlyList<string> modules = new AdapterKeys(adapter).AdaptedModules;
        CheckpointNames names = CheckpointNames.Match([.. checkpoint.Entries.Keys], modules, checkpoint.Aliases);
        int found = modules.Count(module => names.Find(module + ".weight") is not null);
        return (found, found == modules.Count);
    }

    /// <summary>Whether an adapter changes nothing. Reads no more than the factors of one layer if it is trained.</summary>
    /// <param name="adapter">The adapter.</param>
    public static bool IsZero(CheckpointMergeAdapter adapter)
    {
        AdapterKeys keys = new(adapter);
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = NewDisposeScope();
        return keys is { Saved.Count: 0, Norms.Count: 0, Layers.Count: > 0 } && keys.Layers.All(module => ZeroFactors.IsProductZero(
            keys.OfLayer(module).Select(key => (key[(module.Length + 1)..], new Func<Tensor>(() => adapter.Tensors.Read(key))))));
    }

    private void Match()
    {
        foreach (string module in _keys.Layers)
        {
            AddLayer(module);
        }

        foreach (IMergeModule module in _adapter.Others)
        {
            AddOther(module);
        }

        foreach (string key in _keys.Norms)
        {
            AddNorm(key);
        }

        foreach (string key in _keys.Saved)
        {
            AddSaved(key);
        }

        foreach (string key in _keys.BaseCopies)
        {
            AddBaseCopy(key);
        }

        CheckUnmatched();
        AddMissing();
        CheckVocabulary();
        CheckTargets();
        AdapterLoader.Check(_adapter.Name, _expected, _adapter.Tensors.Entries.ToDictionary(static pair => pair.Key, static pair => pair.Value.Shape, StringComparer.Ordinal));
        _warnings.AddRange(_copies.Where(pair => _checkpoint.Differs(pair.Value, _adapter.Tensors, pair.Key)).Select(static pair => BaseCopies.Differs(pair.Key)));
        if (_names.Prepended.Length > 0)
        {
            _plan.HeadPrefix = _names.Prepended;
        }
    }

    private void AddLayer(string module)
    {
        if (FindWeight(module) is SafetensorsEntry weight)
        {
            (LayerSettings settings, bool isTransposed) = Expect(module, weight);
            _plan.Add(weight, new ConfiguredContribution(_adapter, module, settings) { IsTransposed = isTransposed });
        }
    }

    private void AddOther(IMergeModule module)
    {
        if (FindWeight(module.Name) is not SafetensorsEntry weight)
        {
            return;
        }

        foreach (string key in module.Keys)
        {
            _expected.Add(key, [.. _adapter.Tensors.Entries[key].Shape]);
        }

        _plan.Add(weight, OtherChange.Of(module, _adapter, weight, _checkpoint));
    }

    /// <summary>The weight of an adapted module; null, and noted, where the checkpoint has none.</summary>
    private SafetensorsEntry? FindWeight(string module)
    {
        _checkpoint.CheckNotTied(module);
        if (_names.Find(module + ".weight") is not string key)
        {
            _unmatched.AddRange(_keys.OfLayer(module));
            return null;
        }

        SafetensorsEntry weight = _checkpoint.Entries[key];
        _checkpoint.CheckMergeable(weight);
        if (weight.Shape.Count < 2)
        {
            throw _checkpoint.NotMergeable(weight);
        }

        return _weights.TryAdd(key, module) ? weight : throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
            $"'{module}' and '{_weights[key]}' of adapter '{_adapter.Name}' are two names of '{key}'.",
            "The file mixes two generations of names; delete one of the two modules.") { Target = module };
    }

    /// <summary>Adds the tensors of a layer to those that the adapter must have.</summary>
    private (LayerSettings Settings, bool IsTransposed) Expect(string module, SafetensorsEntry weight)
    {
        (long rows, long columns) = DeltaSize(module, weight);
        bool isTransposed = _checkpoint.Transposed.Contains(weight, rows, columns);
        (long outFeatures, long inFeatures) = isTransposed ? (weight.Shape[1], weight.Shape[0]) : (weight.Shape[0], weight.Shape[1]);
        LayerSettings settings = LayerSettings.Create(module, new(outFeatures, inFeatures, [.. weight.Shape.Skip(2)]), _ranks,
            suffix => _adapter.Tensors.Entries.GetValueOrDefault($"{module}.{suffix}")?.Shape);
        foreach ((string suffix, long[] shape) in settings.Tensors)
        {
            _expected.Add($"{module}.{suffix}", shape);
        }

        return (settings, isTransposed);
    }

    private void AddNorm(string key)
    {
        if (_names.Find($"{AdapterKeys.Module(key)}.{AdapterKeys.NormParameter(key)}") is not string name)
        {
            _unmatched.Add(key);
            return;
        }

        SafetensorsEntry parameter = _checkpoint.Entries[name];
        _checkpoint.CheckMergeable(parameter);
        _expected.Add(key, [.. parameter.Shape]);
        _plan.Add(parameter, new StoredContribution(new(_adapter, key)));
    }

    private void AddSaved(string key)
    {
        if (TargetResolver.SavedModule(_config, key) is not string module)
        {
            // Nobody asked for it: the check of all tensors reports it.
            return;
        }

        string owner = AdapterKeys.Module(key);
        if (_tables.Contains(owner) && key == owner + ".weight" && _checkpoint.TiedTables is { Count: > 0 } tied)
        {
            AddTiedTable(key, module, tied);
            return;
        }

        _checkpoint.CheckNotTied(owner);
        AdapterTensor given = new(_adapter, key);
        if (_names.Find(key) is string name)
        {
            Replace(_checkpoint.Entries[name], given, module);
        }
        else if (IsNew(module))
        {
            _expected.Add(key, [.. given.Entry.Shape]);
            _plan.AddNew(given, module);
        }
        else
        {
            _unmatched.Add(key);
        }
    }

    private void Replace(SafetensorsEntry stored, AdapterTensor given, string module)
    {
        CheckReplaceable(given, stored);
        _expected.Add(given.Key, [.. GrownVocabulary.Replaces(AdapterKeys.Module(given.Key), stored.Shape, given.Entry.Shape) ? given.Entry.Shape : stored.Shape]);
        _plan.Replace(stored, given, module);
    }

    // Input and output embeddings are one weight, which the checkpoint has once or twice, and so has the adapter: one table stands for all of them.
    private void AddTiedTable(string key, string module, IReadOnlyList<SafetensorsEntry> tied)
    {
        AdapterTensor given = new(_adapter, key);
        if (_tied is { } first)
        {
            if (!given.Entry.Shape.SequenceEqual(first.Entry.Shape) || CheckpointTraits.Differs(_adapter.Tensors, first.Entry, _adapter.Tensors, key))
            {
                throw ModelErrors.TiedTables(_adapter.Name, AdapterKeys.Module(first.Key), AdapterKeys.Module(key));
            }

            _expected.Add(key, [.. given.Entry.Shape]);
            return;
        }

        _tied = given;
        Replace(tied[0], given, module);
        foreach (SafetensorsEntry other in tied.Skip(1))
        {
            _plan.Replace(other, given, module);
        }
    }

    // What a checkpoint has beside the model that the adapter was made for, such as the head of a language model under a classifier, stays as it is.
    private void CheckVocabulary()
    {
        bool classifies = _config.TaskType is not (null or TaskType.CausalLanguageModeling or TaskType.Seq2SeqLanguageModeling);
        IEnumerable<(string Name, long Before, long After)> rows = _checkpoint.Entries.Values
            .Where(entry => entry.Shape.Count is 1 or 2 && AdapterKeys.Module(entry.Name) is string module && (EmbeddingNames.IsInput(module) || (!classifies && EmbeddingNames.IsOutput(module))))
            .Select(entry => (entry.Name, entry.Shape[0], _plan.ShapeOf(entry)[0]));
        if (GrownVocabulary.Check(_adapter.Name, rows) is string growth)
        {
            _warnings.Add(growth);
        }
    }

    private void AddBaseCopy(string key)
    {
        if (_names.Find(_keys.Original(key)!) is not string name)
        {
            _unmatched.Add(key);
            return;
        }

        SafetensorsEntry stored = _checkpoint.Entries[name];
        _expected.Add(key, [.. stored.Shape]);
        _copies.Add(key, stored);
    }

    // What the model of the adapter has and the checkpoint lacks: a head on a bare model, a pooler below a base (bert.pooler.dense). A module of
    // which the checkpoint has tensors is another one than the adapter's; a layer with a number belongs to a model of another size.
    private bool IsNew(string module) => !HasTensorOf(module)
        && (!module.Contains('.', StringComparison.Ordinal) || (_names.KeepsBeginnings && !module.Split('.').Any(static part => part.All(char.IsAsciiDigit))));

    private bool HasTensorOf(string module)
    {
        int place = Array.BinarySearch(_sorted.Value, module + ".", StringComparer.Ordinal);
        return place >= 0 || (~place < _sorted.Value.Length && ModuleTree.IsWithin(_sorted.Value[~place], module));
    }

    /// <summary>Rows and columns of the delta, from the factors; those of the weight where factors are missing.</summary>
    private (long Rows, long Columns) DeltaSize(string module, SafetensorsEntry weight)
    {
        IReadOnlyList<long>? Shape(string suffix) => _adapter.Tensors.Entries.GetValueOrDefault($"{module}.{suffix}")?.Shape is { Count: >= 2 } shape ? shape : null;
        IReadOnlyList<long>? w1a = Shape(FactorNames.W1) ?? Shape(FactorNames.W1A);
        IReadOnlyList<long>? w1b = Shape(FactorNames.W1) ?? Shape(FactorNames.W1B);
        IReadOnlyList<long>? w2a = Shape(FactorNames.W2) ?? Shape(FactorNames.W2A);
        IReadOnlyList<long>? w2b = Shape(FactorNames.W2) ?? Shape(FactorNames.W2B);
        return w1a is null || w1b is null || w2a is null || w2b is null
            ? (weight.Shape[0], weight.Shape[1])
            : (w1a[0] * w2a[0], w1b[1] * w2b[1]);
    }

    private void CheckUnmatched()
    {
        if (_unmatched.Count > 0)
        {
            string example = _checkpoint.Entries.Keys.FirstOrDefault(key => _keys.AdaptedModules.Any(module => key.EndsWith(module[(module.LastIndexOf('.') + 1)..] + ".weight", StringComparison.Ordinal)))
                ?? _checkpoint.Entries.Keys.First();
            throw new LoKrException(ErrorIds.AdapterKeysMismatch, LoKrErrorKind.InvalidData,
                $"{_unmatched.Count} tensors of adapter '{_adapter.Name}' match no tensor of the checkpoint '{_checkpoint.Folder}': {string.Join("; ", _unmatched.Order(StringComparer.Ordinal))}.",
                $"The adapter was made for another model; tensors of this one have names like '{example}'.") { Target = _unmatched[0] };
        }
    }

    /// <summary>Adds to the tensors that the adapter must have those of modules that are saved whole: a file holds all of them.</summary>
    private void AddMissing()
    {
        LoKrConfig named = _config with { TaskType = null };
        HashSet<string> heads = [.. _keys.Saved.Select(key => TargetResolver.SavedModule(_config, key)).OfType<string>()];
        foreach (SafetensorsEntry stored in _checkpoint.Entries.Values.Where(static entry => MergePlan.IsWeightType(entry.DType)))
        {
            IReadOnlyList<string> names = _names.InAdapter(stored.Name);
            if (names.FirstOrDefault(name => TargetResolver.SavedModule(named, name) is not null || heads.Any(head => ModuleTree.IsWithin(name, head))) is string saved
                && !names.Any(_expected.ContainsKey))
            {
                _expected.Add(saved, [.. stored.Shape]);
            }
        }
    }

    /// <summary>
    /// Compares the modules of the file with those that the configuration targets, as loading into a model does: another configuration than
    /// the file's has another rank and alpha too. A checkpoint may hold modules that the model of the adapter does not have (another head, a
    /// decoder, layers for prediction ahead); factors are missing only for modules beside adapted ones.
    /// </summary>
    private void CheckTargets()
    {
        const string end = ".weight";
        Dictionary<string, string[]> names = _checkpoint.Entries.Values
            .Where(static entry => entry.Name.EndsWith(end, StringComparison.Ordinal))
            .ToDictionary(static entry => entry.Name, entry => (string[])[.. _names.InAdapter(entry.Name).Select(static name => name[..^end.Length])], StringComparer.Ordinal);
        foreach ((string key, string module) in _weights)
        {
            names[key] = [module, .. names.GetValueOrDefault(key, [])];
        }

        if (TargetResolver.Resolve([.. names.Values.SelectMany(static all => all).Distinct(StringComparer.Ordinal)], _config, _checkpoint.ModelType) is not { } targets)
        {
            return;
        }

        HashSet<string> blocks = [.. _weights.Values.Select(Block)];
        foreach ((string key, string[] all) in names)
        {
            bool isTarget = all.Any(targets.Contains);
            if (_weights.TryGetValue(key, out string? module))
            {
                if (!isTarget)
                {
                    _keys.OfLayer(module).ToList().ForEach(name => _expected.Remove(name));
                }
            }
            else if (isTarget && _checkpoint.Entries[key] is { Shape.Count: >= 2 } weight
                && Array.Find(all, name => targets.Contains(name) && blocks.Contains(Block(name))) is string missing && IsOfModel(missing))
            {
                ExpectMissing(missing, weight);
            }
        }
    }

    private void ExpectMissing(string module, SafetensorsEntry weight)
    {
        if (_adapter.Others.Count == 0)
        {
            Expect(module, weight);
            return;
        }

        foreach (string suffix in _adapter.Others[0].Suffixes)
        {
            _expected.Add($"{module}.{suffix}", []);
        }
    }

    // The name of the module around one, whatever the number of its layer.
    private static string Block(string module) =>
        string.Join('.', AdapterKeys.Module(module).Split('.').Select(static part => part.All(char.IsAsciiDigit) ? "#" : part));

    private bool IsOfModel(string module) => _checkpoint.LayerCount is not int count
        || module.Split('.').FirstOrDefault(static part => part.Length > 0 && part.All(char.IsAsciiDigit)) is not string layer
        || !int.TryParse(layer, CultureInfo.InvariantCulture, out int number) || number < count;

    private void CheckReplaceable(AdapterTensor given, SafetensorsEntry stored)
    {
        if (!SafetensorsDTypes.IsSameLayout(stored.DType) || !SafetensorsDTypes.CanConvert(SafetensorsDTypes.Natural(given.Entry.DType), SafetensorsDTypes.Natural(stored.DType)))
        {
            throw new LoKrException(ErrorIds.TensorDTypeMismatch, LoKrErrorKind.InvalidData,
                $"'{given.Key}' of adapter '{_adapter.Name}' is {SafetensorsDTypes.Name(given.Entry.DType)}, which cannot replace {SafetensorsDTypes.Name(stored.DType)} in the checkpoint.",
                "Use the model's float32, float16 or bfloat16 weights.") { Target = given.Key };
        }
    }
}

/// <summary>The tensors of an adapter by their purpose: factors of layers, changes of norms, and modules that are saved whole.</summary>
internal sealed class AdapterKeys
{
    private static readonly string[] s_suffixes =
    [
        FactorNames.W1, FactorNames.W1A, FactorNames.W1B, FactorNames.W2, FactorNames.W2A, FactorNames.W2B, FactorNames.T2,
        FactorNames.Scalar, FactorNames.DoraScale,
    ];

    private readonly List<string> _factors = [];
    private readonly HashSet<string> _layers;
    private readonly Dictionary<string, IMergeModule> _others;

    /// <summary>Sorts the names.</summary>
    /// <param name="adapter">The adapter.</param>
    public AdapterKeys(CheckpointMergeAdapter adapter)
    {
        _others = adapter.Others.ToDictionary(static module => module.Name, StringComparer.Ordinal);
        string[] all = [.. adapter.Tensors.Entries.Keys.Except(adapter.Others.SelectMany(static module => module.Keys), StringComparer.Ordinal)];
        Layers = [.. all.Where(static key => Suffix(key) is string suffix && FactorNames.IsFactor(suffix)).Select(Module).Distinct(StringComparer.Ordinal)];
        HashSet<string> layers = [.. Layers];
        List<string> norms = [];
        List<string> saved = [];
        _layers = [.. layers, .. _others.Keys];
        BaseCopies = [.. all.Where(key => Original(key) is not null)];
        foreach (string key in all.Except(BaseCopies))
        {
            // A scalar or a scale without factors is a parameter of a module that is saved whole.
            List<string> kind = NormParameter(key) is not null ? norms : Suffix(key) is not null && layers.Contains(Module(key)) ? _factors : saved;
            kind.Add(key);
        }

        (Norms, Saved) = (norms, saved);
        AdaptedModules = [.. Layers.Union(_others.Keys, StringComparer.Ordinal).Union(norms.Select(Module), StringComparer.Ordinal)];
    }

    /// <summary>Modules with factors.</summary>
    public IReadOnlyList<string> Layers { get; }

    /// <summary>Names of copies of the base weights of adapted layers.</summary>
    public IReadOnlyList<string> BaseCopies { get; }

    /// <summary>Names of the changes of norms.</summary>
    public IReadOnlyList<string> Norms { get; }

    /// <summary>Names of the tensors of modules that are saved whole.</summary>
    public IReadOnlyList<string> Saved { get; }

    /// <summary>Modules with factors or other products, and norms with changes.</summary>
    public IReadOnlyList<string> AdaptedModules { get; }

    /// <summary>Names of the tensors of an adapted layer.</summary>
    public IEnumerable<string> OfLayer(string module) => _others.TryGetValue(module, out IMergeModule? other) ? other.Keys : _factors.Where(key => Module(key) == module);

    /// <summary>The tensor of an adapted layer of which a tensor is a copy, or null.</summary>
    public string? Original(string key) => Model.BaseCopies.Original(key, _layers.Contains);

    /// <summary>The module that a tensor belongs to.</summary>
    public static string Module(string key) => ModuleTree.Parent(key);

    /// <summary>The parameter of a norm that a tensor changes, or null.</summary>
    public static string? NormParameter(string key) => key.EndsWith("." + LoKrNorm.WeightSuffix, StringComparison.Ordinal) ? "weight"
        : key.EndsWith("." + LoKrNorm.BiasSuffix, StringComparison.Ordinal) ? "bias"
        : null;

    private static string? Suffix(string key) => s_suffixes.FirstOrDefault(suffix => key.EndsWith("." + suffix, StringComparison.Ordinal));
}
