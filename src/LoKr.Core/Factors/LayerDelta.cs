using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// The change that one adapter makes to one weight, some rows at a time, so that a weight of any size passes through a buffer. Rows are those
/// of the weight as it is stored. Merges on disk and in-memory merges of DoRA use the same code and so the same arithmetic.
/// </summary>
internal sealed class LayerDelta : IDisposable
{
    /// <summary>Bytes of a weight that are merged at a time.</summary>
    public const long BlockBytes = 1 << 20;

    // In bytes. The rows of a larger low-rank w2 are multiplied out where they are needed.
    private const long LargestProduct = 64 << 20;

    private readonly Dictionary<string, Tensor> _factors = new(StringComparer.Ordinal);
    private readonly IReadOnlyList<long> _kernel;
    private readonly bool _isReversed;
    private readonly double _scaling;
    private readonly AdapterStrength _strength;
    private readonly bool _normsOfRows;
    private readonly Tensor? _magnitude;
    private readonly ProductMemory? _memory;
    private readonly Tensor? _product;
    private Tensor? _columnQuotients;

    /// <summary>Prepares the factors.</summary>
    /// <param name="factors">Factors of the delta, out×in.</param>
    /// <param name="dora">Axis of the magnitudes of DoRA; null without it.</param>
    /// <param name="scaling">Scale of w1 ⊗ w2 as trained.</param>
    /// <param name="strength">Strength of the adapter.</param>
    /// <param name="isTransposed">Whether the weight is stored in×out.</param>
    /// <param name="memory">Lends memory for a low-rank w2 that is multiplied out; null to allocate it.</param>
    public LayerDelta(KroneckerFactors factors, WeightDecomposeAxis? dora, double scaling, AdapterStrength strength, bool isTransposed, ProductMemory? memory = null)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        _kernel = factors.Kernel;
        _isReversed = factors.IsReversed;
        Group = RowBlock.GroupOf(isTransposed, _isReversed, factors.L, factors.K, factors.N);
        Tensor w1 = factors.W1();
        _factors.Add(FactorNames.W1, Own(isTransposed ? w1.t() : w1));
        if (!isTransposed && factors is { W2A: Tensor a, W2B: Tensor b, Core: null } && factors.K * factors.N * 4 > LargestProduct)
        {
            _factors.Add(FactorNames.W2A, Own(a));
            _factors.Add(FactorNames.W2B, Own(b));
        }
        else if (!isTransposed && memory is not null && factors is { W2A: Tensor tall, W2B: Tensor wide, Core: null })
        {
            (long rows, long columns) = (tall.shape[0], wide.shape[1]);
            (_memory, _product) = (memory, memory.Take(rows * columns, factors.DType));
            Tensor w2 = _product.narrow(0, 0, rows * columns).view(rows, columns).addmm_(tall, wide, 0f, 1f);
            _factors.Add(FactorNames.W2, Own(w2.view([factors.K, factors.N, .. factors.Kernel])));
        }
        else
        {
            Tensor w2 = factors.W2();
            _factors.Add(FactorNames.W2, Own(isTransposed ? w2.t() : w2));
        }

        if (dora is WeightDecomposeAxis axis)
        {
            _magnitude = Own(factors.Tensors[FactorNames.DoraScale].reshape(-1));
            _normsOfRows = (axis == WeightDecomposeAxis.Output) != isTransposed;
        }

        _scaling = dora is not null ? scaling : scaling * strength.Value;
        _strength = strength;
    }

    /// <summary>Rows that share a row of the outer factor.</summary>
    public long Group { get; }

    /// <summary>Whether the base weight is needed beside the weight (DoRA).</summary>
    public bool NeedsBase => _magnitude is not null;

    /// <summary>Whether <see cref="Measure"/> must read the whole base weight first (DoRA by input column).</summary>
    public bool NeedsMeasure => _magnitude is not null && !_normsOfRows;

    private ScalarType Type => _factors[FactorNames.W1].dtype;

    /// <summary>Splits rows into runs that fit a block, whole groups where these fit.</summary>
    /// <param name="rows">Rows of the weight.</param>
    /// <param name="group">Rows that share a row of the outer factor.</param>
    /// <param name="rowBytes">Bytes of a row.</param>
    /// <param name="unit">Rows that are never split, whatever their bytes.</param>
    public static IEnumerable<(long Start, long Count)> Runs(long rows, long group, long rowBytes, long unit = 1)
    {
        long most = Math.Max(1, BlockBytes / Math.Max(1, rowBytes));
        most = unit > 1 ? Math.Max(unit, most - (most % unit)) : most > group ? most - (most % group) : most;
        for (long start = 0; start < rows; start += most)
        {
            yield return (start, Math.Min(most, rows - start));
        }
    }

    /// <summary>Computes the norms of the columns of W + Δ, which the merge of any row needs.</summary>
    /// <param name="baseRows">Returns rows of the base weight, given the first one and their number.</param>
    /// <param name="shape">Shape of the weight as it is stored.</param>
    public void Measure(Func<long, long, Tensor> baseRows, IReadOnlyList<long> shape)
    {
        if (!NeedsMeasure)
        {
            return;
        }

        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor squares = zeros_like(_magnitude!);
        foreach ((long start, long count) in Runs(shape[0], Group, Type.ElementSize() * shape.Skip(1).Product()))
        {
            using DisposeScope inner = NewDisposeScope();
            (Tensor _, Tensor sum) = Sum(baseRows(start, count), start);
            squares.add_(sum.reshape(sum.shape[0], sum.shape[1], -1).square().sum(new long[] { 0, 2 }));
        }

        _columnQuotients = Dora.Quotients(_magnitude!, squares.sqrt(), _strength).DetachFromDisposeScope();
    }

    /// <summary>Adds the delta into rows of a weight, in place.</summary>
    /// <param name="rows">The rows, other adapters included; of any floating-point type. A type of lower precision is rounded once.</param>
    /// <param name="baseRows">The same rows without any adapter; used by DoRA alone.</param>
    /// <param name="start">Number of the first row.</param>
    public void MergeInto(Tensor rows, Tensor? baseRows, long start)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        if (_magnitude is null)
        {
            Add(rows, start);
            return;
        }

        (Tensor original, Tensor sum) = Sum(baseRows!, start);
        long[] ones = [.. _kernel.Select(static _ => 1L)];
        Tensor quotients = _normsOfRows
            ? Dora.Quotients(_magnitude.narrow(0, start, sum.shape[0]), linalg.vector_norm(sum.reshape(sum.shape[0], -1), 2, [1], false), _strength).reshape([-1, 1, .. ones])
            : _columnQuotients!.reshape([1, -1, .. ones]);
        sum.mul_(quotients);
        rows.copy_(rows.to(Type) + Dora.Applied(sum - original, _strength));
    }

    /// <summary>
    /// A kernel that adds the delta into bytes of a file without tensors; null where the type of the weight, DoRA, a reversed product or a w2
    /// that is not multiplied out rules it out. The caller disposes it before this object.
    /// </summary>
    /// <param name="type">Type of the weight.</param>
    public MergeKernel? Kernel(SafetensorsDType type) =>
        _magnitude is null && !_isReversed && _factors.TryGetValue(FactorNames.W2, out Tensor? w2)
        && type is SafetensorsDType.F32 or SafetensorsDType.BF16
        && (MergeKernel.Supports(Type, SafetensorsDTypes.Natural(type)) || MergeKernel.SupportsWide(Type, SafetensorsDTypes.Natural(type)))
            ? new MergeKernel(_factors[FactorNames.W1], w2, _scaling)
            : null;

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor factor in _factors.Values)
        {
            factor.Dispose();
        }

        _magnitude?.Dispose();
        _columnQuotients?.Dispose();
        if (_product is not null)
        {
            _memory!.Return(_product);
        }
    }

    private (Tensor Original, Tensor Sum) Sum(Tensor baseRows, long start)
    {
        Tensor original = baseRows.to(Type).contiguous();
        Tensor sum = original.clone();
        Add(sum, start);
        return (original, sum);
    }

    private void Add(Tensor rows, long start)
    {
        long done = 0;
        foreach (RowBlock block in RowBlock.Cut(Group, start, rows.shape[0]))
        {
            FactorMerge.AddTo(block.Count == rows.shape[0] ? rows : rows.narrow(0, done, block.Count), Part(block), _scaling);
            done += block.Count;
        }
    }

    private KroneckerFactors Part(RowBlock block)
    {
        Tensor Outer(Tensor factor) => factor.narrow(0, block.OuterStart, block.OuterCount);
        Tensor Inner(Tensor factor) => factor.narrow(0, block.InnerStart, block.InnerCount);
        Dictionary<string, Tensor> parts = new(StringComparer.Ordinal);
        parts.Add(FactorNames.W1, _isReversed ? Inner(_factors[FactorNames.W1]) : Outer(_factors[FactorNames.W1]));
        if (_factors.TryGetValue(FactorNames.W2A, out Tensor? a))
        {
            parts.Add(FactorNames.W2A, _isReversed ? Outer(a) : Inner(a));
            parts.Add(FactorNames.W2B, _factors[FactorNames.W2B]);
        }
        else
        {
            parts.Add(FactorNames.W2, _isReversed ? Outer(_factors[FactorNames.W2]) : Inner(_factors[FactorNames.W2]));
        }

        return new KroneckerFactors(parts, _kernel, _isReversed);
    }

    // Shares memory where it can: the factors do not change while they are merged.
    private static Tensor Own(Tensor tensor) => tensor.detach().contiguous().DetachFromDisposeScope();
}

/// <summary>
/// Memory for products of factors that those of one weight take over from another. Merges multiply w2 out for hundreds of weights, on several
/// threads, and what the allocator keeps of each would grow with their number.
/// </summary>
internal sealed class ProductMemory : IDisposable
{
    private readonly Lock _gate = new();
    private readonly List<Tensor> _free = [];

    /// <summary>A flat tensor on the CPU of at least so many numbers, with undefined content; to give back by <see cref="Return"/>, from any thread.</summary>
    /// <param name="count">The least number.</param>
    /// <param name="type">Their type.</param>
    public Tensor Take(long count, ScalarType type)
    {
        lock (_gate)
        {
            Tensor? free = _free.Where(memory => memory.dtype == type).MaxBy(static memory => memory.numel());
            if (free is not null)
            {
                // By reference: tensors are equal by their numbers, and one with NaN is not equal to itself.
                _free.RemoveAt(_free.FindIndex(memory => ReferenceEquals(memory, free)));
                if (free.numel() >= count)
                {
                    return free;
                }

                free.Dispose();
            }
        }

        return empty(count, type).DetachFromDisposeScope();
    }

    /// <summary>Takes a tensor back.</summary>
    public void Return(Tensor memory)
    {
        lock (_gate)
        {
            _free.Add(memory);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _free.ForEach(static memory => memory.Dispose());
        _free.Clear();
    }
}

/// <summary>Some consecutive rows of w1 ⊗ w2: whole groups of rows that share a row of the outer factor, or a part of one group.</summary>
/// <param name="OuterStart">First row of the outer factor.</param>
/// <param name="OuterCount">Rows of the outer factor; 1 for a part of a group.</param>
/// <param name="InnerStart">First row of the inner factor.</param>
/// <param name="InnerCount">Rows of the inner factor.</param>
internal readonly record struct RowBlock(long OuterStart, long OuterCount, long InnerStart, long InnerCount)
{
    /// <summary>Number of rows.</summary>
    public long Count => OuterCount * InnerCount;

    /// <summary>Rows of a stored weight that share a row of the outer factor.</summary>
    /// <param name="isTransposed">Whether the weight is stored in×out.</param>
    /// <param name="isReversed">Whether the delta is w2 ⊗ w1.</param>
    /// <param name="l">Rows of w1.</param>
    /// <param name="k">Rows of w2.</param>
    /// <param name="n">Columns of w2.</param>
    public static long GroupOf(bool isTransposed, bool isReversed, long l, long k, long n) => isTransposed ? n : isReversed ? l : k;

    /// <summary>Cuts a run of rows where whole groups begin and end: at most three blocks.</summary>
    /// <param name="inner">Rows of the inner factor, the size of a group.</param>
    /// <param name="start">First row.</param>
    /// <param name="count">Number of rows.</param>
    public static IEnumerable<RowBlock> Cut(long inner, long start, long count)
    {
        long end = start + count;
        while (start < end)
        {
            (long group, long first) = Math.DivRem(start, inner);
            RowBlock block = first == 0 && end - start >= inner
                ? new RowBlock(group, (end - start) / inner, 0, inner)
                : new RowBlock(group, 1, first, Math.Min(inner - first, end - start));
            yield return block;
            start += block.Count;
        }
    }
}
