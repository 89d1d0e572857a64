using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.Layers;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>Where rows of a delta belong: a delta may be for some rows of a fused weight, for several weights, or for one whose halves changed places.</summary>
/// <param name="Tensor">Name of a tensor of the checkpoint.</param>
/// <param name="TensorRow">First row there.</param>
/// <param name="Row">First row of the delta.</param>
/// <param name="Count">Number of rows.</param>
internal sealed record RowPlace(string Tensor, long TensorRow, long Row, long Count);

/// <summary>A change that one adapter makes to weights of a checkpoint; its tensors are read when a weight is merged.</summary>
/// <param name="Adapter">The adapter.</param>
internal abstract record RowContribution(CheckpointMergeAdapter Adapter)
{
    /// <summary>Where the rows of the change belong; null where they are those of the whole weight.</summary>
    public IReadOnlyList<RowPlace>? Places { get; init; }

    /// <summary>The rows of one tensor that the change is for.</summary>
    /// <param name="tensor">Name of the tensor.</param>
    /// <param name="rows">Its number of rows.</param>
    public IEnumerable<RowPlace> In(string tensor, long rows) => Places?.Where(place => place.Tensor == tensor) ?? [new(tensor, 0, 0, rows)];
}

/// <summary>A change that is a product of factors: the delta of a layer.</summary>
/// <param name="Adapter">The adapter.</param>
/// <param name="Scaling">Scale of the product as trained.</param>
internal abstract record MergeContribution(CheckpointMergeAdapter Adapter, double Scaling) : RowContribution(Adapter)
{
    /// <summary>Axis of the magnitudes where the weight is decomposed into magnitude and direction (DoRA); null for the product alone.</summary>
    public abstract WeightDecomposeAxis? DoraAxis { get; }

    /// <summary>Whether the weight is stored in×out.</summary>
    public bool IsTransposed { get; init; }

    /// <summary>Rows of the delta as it is stored that share a row of the outer factor.</summary>
    public abstract long Group { get; }

    /// <summary>Whether the weight is decomposed into magnitude and direction.</summary>
    public bool Decomposes => DoraAxis is not null;

    /// <summary>Reads the factors.</summary>
    /// <param name="type">Type in which they are applied.</param>
    /// <param name="memory">Lends memory for what is multiplied out.</param>
    public LayerDelta Read(ScalarType type, ProductMemory memory)
    {
        using DisposeScope scope = NewDisposeScope();
        return new(Factors(type), DoraAxis, Scaling, new(Adapter.Weight, Adapter.DoraStrength), IsTransposed, memory);
    }

    /// <summary>Reads the factors; their tensors belong to the current dispose scope.</summary>
    protected abstract KroneckerFactors Factors(ScalarType type);
}

/// <summary>The delta of a layer as the configuration of an adapter of PEFT describes it.</summary>
/// <param name="Adapter">The adapter.</param>
/// <param name="Module">Name of the module in the adapter.</param>
/// <param name="Settings">Shapes and scale of the factors, and the options that apply to this layer.</param>
internal sealed record ConfiguredContribution(CheckpointMergeAdapter Adapter, string Module, LayerSettings Settings) : MergeContribution(Adapter, Settings.Scaling)
{
    /// <inheritdoc/>
    public override WeightDecomposeAxis? DoraAxis => Settings.Config.WeightDecompose ? Settings.Config.WeightDecomposeAxis : null;

    /// <inheritdoc/>
    public override long Group => RowBlock.GroupOf(IsTransposed, Settings.Shapes.Reversed, Settings.Shapes.L, Settings.Shapes.K, Settings.Shapes.N);

    /// <inheritdoc/>
    protected override KroneckerFactors Factors(ScalarType type)
    {
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        foreach ((string suffix, long[] shape) in Settings.Tensors)
        {
            string key = $"{Module}.{suffix}";
            if (Adapter.Tensors.Entries.ContainsKey(key))
            {
                tensors.Add(suffix, Adapter.Tensors.Read(key, type).reshape(shape));
            }
        }

        return new(tensors, Settings.Shapes.Kernel, Settings.Shapes.Reversed);
    }
}

/// <summary>Puts a product of other tensors than LoKr's factors onto a weight.</summary>
internal static class OtherChange
{
    /// <summary>The product as a change of a weight.</summary>
    /// <param name="module">The product.</param>
    /// <param name="adapter">The adapter.</param>
    /// <param name="weight">The weight.</param>
    /// <param name="checkpoint">The checkpoint that has it.</param>
    /// <exception cref="LoKrException"><c>LoKr.AdapterShapeMismatch</c>.</exception>
    public static RowContribution Of(IMergeModule module, CheckpointMergeAdapter adapter, SafetensorsEntry weight, CheckpointTraits checkpoint) =>
        Of(module, adapter, weight.Shape, IsTransposed(module, weight, checkpoint));

    /// <summary>The product as a change of a weight, or of rows of one.</summary>
    /// <param name="module">The product.</param>
    /// <param name="adapter">The adapter.</param>
    /// <param name="stored">Shape of the weight or the rows as it is stored.</param>
    /// <param name="isTransposed">Whether that is in×out.</param>
    /// <exception cref="LoKrException"><c>LoKr.AdapterShapeMismatch</c>.</exception>
    public static RowContribution Of(IMergeModule module, CheckpointMergeAdapter adapter, IReadOnlyList<long> stored, bool isTransposed)
    {
        IReadOnlyList<long> weight = isTransposed && stored.Count == 2 ? [stored[1], stored[0]] : stored;
        return module.Fits(weight)
            ? module.Contribution(adapter, [.. weight.Skip(2)], isTransposed)
            : throw Mismatch(module, adapter.Name, stored);
    }

    /// <summary>The error for a product that does not fit a weight.</summary>
    /// <param name="module">The product.</param>
    /// <param name="adapter">Name of its adapter.</param>
    /// <param name="stored">Shape of the weight as it is stored.</param>
    public static LoKrException Mismatch(IMergeModule module, string adapter, IReadOnlyList<long> stored) => new(ErrorIds.AdapterShapeMismatch, LoKrErrorKind.InvalidData,
        $"The matrices of '{module.Name}' of adapter '{adapter}' give [{module.Rows}, {module.Columns}], but the weight of the base model is [{string.Join(", ", stored)}].",
        "The adapter was made for another model.") { Target = module.Name };

    /// <summary>Whether a weight is stored in×out: as the checkpoint tells, or the configuration of the adapter.</summary>
    /// <param name="module">The product.</param>
    /// <param name="weight">The weight.</param>
    /// <param name="checkpoint">The checkpoint that has it.</param>
    public static bool IsTransposed(IMergeModule module, SafetensorsEntry weight, CheckpointTraits checkpoint) =>
        checkpoint.Transposed.Contains(weight, module.Rows, module.Columns) || (module.IsStoredTransposed && weight.Shape.Count == 2 && weight.Shape[0] == module.Columns && weight.Shape[1] == module.Rows);
}

/// <summary>A change whose rows are stored as they are, or computed one by one.</summary>
/// <param name="Adapter">The adapter.</param>
internal abstract record DenseContribution(CheckpointMergeAdapter Adapter) : RowContribution(Adapter)
{
    /// <summary>Opens the change; called once for each weight.</summary>
    /// <param name="type">Type of the rows.</param>
    public abstract IDeltaRows Open(ScalarType type);
}

/// <summary>Rows of a change, the strength of the adapter included.</summary>
internal interface IDeltaRows : IDisposable
{
    /// <summary>Some rows, of any shape with as many numbers as those of the weight. They belong to the current dispose scope.</summary>
    /// <param name="start">First row.</param>
    /// <param name="count">Number of rows.</param>
    Tensor Read(long start, long count);
}

/// <summary>A tensor of the adapter that is added: the change of a norm, of a bias or of a whole weight.</summary>
/// <param name="Tensor">The tensor.</param>
internal sealed record StoredContribution(AdapterTensor Tensor) : DenseContribution(Tensor.Adapter)
{
    /// <inheritdoc/>
    public override IDeltaRows Open(ScalarType type) => new Rows(Tensor, type);

    private sealed class Rows(AdapterTensor tensor, ScalarType type) : IDeltaRows
    {
        // A vector has one number in a row, and so has a scalar.
        private readonly long _length = tensor.Entry.Shape.Skip(1).Product();

        public Tensor Read(long start, long count)
        {
            Tensor rows = empty(count * _length, type);
            tensor.Adapter.Tensors.ReadRange(tensor.Key, start * _length, rows);
            return rows * tensor.Adapter.Weight;
        }

        public void Dispose()
        {
        }
    }
}
