using LoKr.Core.Errors;
using LoKr.Core.Safetensors;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The changes that adapters make to the tensors of a checkpoint. Adapters that exclude each other are refused.</summary>
/// <param name="source">The checkpoint as numbers.</param>
internal sealed class MergePlan(ITensorSource source)
{
    private readonly Dictionary<string, TensorChanges> _changes = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, AdapterTensor> _added = new(StringComparer.Ordinal);
    private readonly HashSet<string> _savedModules = new(StringComparer.Ordinal);

    /// <summary>Number of tensors with deltas.</summary>
    public int ChangedCount => _changes.Values.Count(static changes => changes.DeltaCount > 0);

    /// <summary>Number of deltas in all; a tensor may get several.</summary>
    public int DeltaCount => _changes.Values.Sum(static changes => changes.DeltaCount);

    /// <summary>Whether any delta is one of DoRA.</summary>
    public bool HasDora => _changes.Values.Any(static changes => changes.Layers.Exists(static layer => layer.Decomposes));

    /// <summary>Number of modules that adapters replace or add whole.</summary>
    public int SavedModuleCount => _savedModules.Count;

    /// <summary>Tensors that the checkpoint lacks and an adapter adds, by name.</summary>
    public IReadOnlyDictionary<string, AdapterTensor> Added => _added;

    /// <summary>Prefix that the names of the checkpoint get when an adapter adds a head to a bare model; empty for none.</summary>
    public string HeadPrefix { get; set; } = "";

    /// <summary>Whether deltas can be added to tensors of a type.</summary>
    public static bool IsWeightType(SafetensorsDType type) => type is SafetensorsDType.F16 or SafetensorsDType.BF16 or SafetensorsDType.F32 or SafetensorsDType.F64;

    /// <summary>Adds the delta of a layer to a weight.</summary>
    /// <exception cref="LoKrException"><c>LoKr.SavedModuleConflict</c>.</exception>
    public void Add(SafetensorsEntry weight, MergeContribution contribution) => Open(weight.Name, contribution.Adapter).Layers.Add(contribution);

    /// <summary>Adds a change that is stored as it is, as that of a norm, to its weight or bias.</summary>
    /// <exception cref="LoKrException"><c>LoKr.SavedModuleConflict</c>.</exception>
    public void Add(SafetensorsEntry parameter, DenseContribution change) => Open(parameter.Name, change.Adapter).Dense.Add(change);

    /// <summary>Adds a change of either form to a weight.</summary>
    /// <exception cref="LoKrException"><c>LoKr.SavedModuleConflict</c>.</exception>
    public void Add(SafetensorsEntry weight, RowContribution change)
    {
        if (change is MergeContribution delta)
        {
            Add(weight, delta);
        }
        else
        {
            Add(weight, (DenseContribution)change);
        }
    }

    /// <summary>Replaces a tensor of the checkpoint.</summary>
    /// <param name="stored">The tensor of the checkpoint.</param>
    /// <param name="replacement">The adapter's tensor.</param>
    /// <param name="module">Module that is saved whole.</param>
    /// <exception cref="LoKrException"><c>LoKr.SavedModuleConflict</c>.</exception>
    public void Replace(SafetensorsEntry stored, AdapterTensor replacement, string module)
    {
        if (_changes.TryGetValue(stored.Name, out TensorChanges? changes))
        {
            throw Conflict(stored.Name, changes.Adapter, replacement.Adapter);
        }

        _changes.Add(stored.Name, new TensorChanges { Replacement = replacement });
        _savedModules.Add(module);
    }

    /// <summary>Adds a tensor that the checkpoint lacks.</summary>
    /// <param name="tensor">The adapter's tensor.</param>
    /// <param name="module">Module that is saved whole.</param>
    /// <exception cref="LoKrException"><c>LoKr.SavedModuleConflict</c>.</exception>
    public void AddNew(AdapterTensor tensor, string module)
    {
        if (!_added.TryAdd(tensor.Key, tensor))
        {
            throw Conflict(tensor.Key, _added[tensor.Key].Adapter, tensor.Adapter);
        }

        _savedModules.Add(module);
    }

    /// <summary>The tensors of a file of the checkpoint with their changes, in the order of their bytes.</summary>
    /// <param name="shard">The file.</param>
    /// <param name="quantized">What becomes of quantized weights.</param>
    public IEnumerable<MergeTarget> Targets(SafetensorsReader shard, QuantizedMerge quantized) =>
        quantized.Order(shard.Entries.Values.OrderBy(static entry => entry.Offset).ThenBy(static entry => entry.ByteCount).Select(entry => quantized.Target(entry, this)).OfType<MergeTarget>()
            .Select(target => target with { Name = _added.Count > 0 ? HeadPrefix + target.Name : target.Name, Shard = shard }));

    /// <summary>A tensor of the checkpoint with its changes.</summary>
    public MergeTarget Target(SafetensorsEntry entry) => new(entry.Name, entry.DType, ShapeOf(entry))
    {
        Source = source,
        Entry = entry,
        Layers = _changes.TryGetValue(entry.Name, out TensorChanges? changes) ? changes.Layers : [],
        Dense = changes?.Dense ?? [],
        Replacement = changes?.Replacement,
    };

    /// <summary>Shape of a tensor of the checkpoint in the result: embeddings may grow.</summary>
    public IReadOnlyList<long> ShapeOf(SafetensorsEntry stored) => _changes.GetValueOrDefault(stored.Name)?.Replacement?.Entry.Shape ?? stored.Shape;

    /// <summary>Number of tokens of the result where an adapter brings more than the checkpoint has; null otherwise.</summary>
    public long? VocabularySize => source.Entries.Values.Where(entry => ShapeOf(entry) is [long rows, ..] && rows > entry.Shape[0]).Select(entry => (long?)ShapeOf(entry)[0]).FirstOrDefault();

    /// <summary>The tensors that adapters add, in the element type of most of the weights that are not quantized.</summary>
    /// <param name="quantized">What becomes of quantized weights.</param>
    public IEnumerable<MergeTarget> AddedTargets(QuantizedMerge quantized)
    {
        SafetensorsDType usual = source.Entries.Values.Where(entry => IsWeightType(entry.DType) && !quantized.IsQuantized(entry.Name)).GroupBy(static entry => entry.DType)
            .OrderByDescending(static group => group.Sum(entry => entry.ByteCount)).FirstOrDefault()?.Key ?? SafetensorsDType.F32;
        return _added.Values.Select(tensor => new MergeTarget(tensor.Key, IsWeightType(tensor.Entry.DType) ? usual : tensor.Entry.DType, tensor.Entry.Shape) { Replacement = tensor });
    }

    private TensorChanges Open(string key, CheckpointMergeAdapter adapter)
    {
        if (!_changes.TryGetValue(key, out TensorChanges? changes))
        {
            _changes.Add(key, changes = new());
        }

        return changes.Replacement is null ? changes : throw Conflict(key, changes.Adapter, adapter);
    }

    private static LoKrException Conflict(string key, CheckpointMergeAdapter first, CheckpointMergeAdapter second) => new(
        ErrorIds.SavedModuleConflict, LoKrErrorKind.InvalidArgument,
        $"The adapters '{first.Name}' and '{second.Name}' both change '{key}', and one of them replaces the whole tensor.", "Merge one of them.") { Target = key };

    private sealed class TensorChanges
    {
        public List<MergeContribution> Layers { get; } = [];

        public List<DenseContribution> Dense { get; } = [];

        public AdapterTensor? Replacement { get; init; }

        public int DeltaCount => Layers.Count + Dense.Count;

        /// <summary>The adapter that came first.</summary>
        public CheckpointMergeAdapter Adapter => Replacement?.Adapter ?? (Layers.Count > 0 ? Layers[0].Adapter : Dense[0].Adapter);
    }
}

/// <summary>One tensor of the result and its changes.</summary>
/// <param name="Name">Its name in the result.</param>
/// <param name="DType">Type of its numbers.</param>
/// <param name="Shape">Its shape.</param>
internal sealed record MergeTarget(string Name, SafetensorsDType DType, IReadOnlyList<long> Shape)
{
    /// <summary>The file of the base model, or null for a tensor that an adapter adds.</summary>
    public SafetensorsReader? Shard { get; init; }

    /// <summary>The base model, or null for a tensor that an adapter adds.</summary>
    public ITensorSource? Source { get; init; }

    /// <summary>The tensor of the base model, or null for one that an adapter adds.</summary>
    public SafetensorsEntry? Entry { get; init; }

    /// <summary>Type in which deltas are computed and added, before the sum is rounded once.</summary>
    public ScalarType Precision { get; init; } = DType == SafetensorsDType.F64 ? ScalarType.Float64 : ScalarType.Float32;

    /// <summary>Number of rows that are merged together or not at all; those of a head, where the file orders rows within heads.</summary>
    public long RowUnit { get; init; } = 1;

    /// <summary>Deltas of layers to add, in order.</summary>
    public IReadOnlyList<MergeContribution> Layers { get; init; } = [];

    /// <summary>Changes to add that are stored as they are, in order.</summary>
    public IReadOnlyList<DenseContribution> Dense { get; init; } = [];

    /// <summary>The adapter's tensor that replaces it, or null.</summary>
    public AdapterTensor? Replacement { get; init; }

    /// <summary>Names of the adapters that change it.</summary>
    public IEnumerable<string> AdapterNames => Layers.Select(static layer => layer.Adapter).Concat(Dense.Select(static change => change.Adapter))
        .Concat(Replacement is null ? [] : [Replacement.Adapter]).Select(static adapter => adapter.Name).Distinct(StringComparer.Ordinal);

    /// <summary>How it is stored in the result where its bytes are not simply its numbers; null where they are.</summary>
    public TargetStorage? Storage { get; init; }

    /// <summary>Measures what rounding to its type leaves of the changes; null where nobody asks, or the storage does it.</summary>
    public QuantizationLoss? Loss { get; init; }

    /// <summary>Whether it is measured what rounding leaves of its changes.</summary>
    public bool IsMeasured => !IsUnchanged && (Storage is WeightStorage || (Loss is not null && Replacement is null));

    /// <summary>Whether adapters leave its numbers as they are.</summary>
    public bool IsUnchanged => Layers.Count == 0 && Dense.Count == 0 && Replacement is null;

    /// <summary>Whether its bytes are those of the base model.</summary>
    public bool IsCopy => IsUnchanged && Storage is null;

    /// <summary>Bytes of a row of its numbers.</summary>
    public long RowBytes => SafetensorsDTypes.Size(DType) * Shape.Skip(1).Product();

    /// <summary>Name, type and shape for a header.</summary>
    public SafetensorsHeaderItem Header => new(Name, Storage?.DType ?? DType, Shape);
}

/// <summary>A tensor of an adapter.</summary>
/// <param name="Adapter">The adapter.</param>
/// <param name="Key">Name of the tensor in the adapter.</param>
internal sealed record AdapterTensor(CheckpointMergeAdapter Adapter, string Key)
{
    /// <summary>Type and shape.</summary>
    public SafetensorsEntry Entry => Adapter.Tensors.Entries[Key];

    /// <summary>Reads the tensor.</summary>
    public Tensor Read(ScalarType type) => Adapter.Tensors.Read(Key, type);
}

