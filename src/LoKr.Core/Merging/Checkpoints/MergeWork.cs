using System.Runtime.InteropServices;
using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The changes of one weight: read before its first piece is merged, released after its last piece is written.</summary>
internal sealed class MergeWork : IDisposable
{
    // Where no kernel measures, one row of so many is merged again to see what rounding leaves.
    private const long RowsForSample = 8;

    private readonly MergeTarget _target;
    private readonly long[] _rowShape;
    private readonly long _rowLength;
    private readonly ScalarType _type;
    private readonly ScalarType _wide;
    private readonly bool _measures;
    private readonly int _stride;
    private readonly (long Start, long Count)[] _runs;
    private readonly List<Delta> _deltas = [];
    private readonly List<Change> _changes = [];
    private readonly Lock _gate = new();
    private Segment[] _segments = [];
    private bool _isReady;
    private int _pending;

    /// <summary>Cuts the weight into runs of rows; nothing is read yet.</summary>
    /// <param name="target">The weight; with changes.</param>
    public MergeWork(MergeTarget target)
    {
        _target = target;
        _rowShape = [.. target.Shape.Skip(1)];
        _rowLength = _rowShape.Product();
        _type = SafetensorsDTypes.Natural(target.DType);
        _wide = target.Precision;
        _measures = target.Loss is not null;
        _stride = QuantizationLoss.Stride(target.Shape);
        long wideRow = _rowLength * _wide.ElementSize();
        long group = target.Layers.Count > 0 ? target.Layers[0].Group : 1;
        _runs = [.. LayerDelta.Runs(RowCount, group, target.Layers.Any(static layer => layer.Decomposes) || _wide == ScalarType.Float64 ? wideRow : target.RowBytes, target.RowUnit)];
        _pending = _runs.Length;
    }

    /// <summary>The runs of rows, each merged as one piece.</summary>
    public IReadOnlyList<(long Start, long Count)> Runs => _runs;

    private long RowCount => _target.Shape.Count > 0 ? _target.Shape[0] : 1;

    /// <summary>Reads the factors, and for DoRA by column the weight once; the first call does.</summary>
    /// <param name="memory">Lends memory for what is multiplied out; outlives this object.</param>
    public void Prepare(ProductMemory memory)
    {
        lock (_gate)
        {
            if (_isReady)
            {
                return;
            }

            foreach (MergeContribution layer in _target.Layers.Skip(_deltas.Count))
            {
                LayerDelta delta = layer.Read(_wide, memory);
                _deltas.Add(new(delta, delta.Kernel(_target.DType), Places(layer)));
                delta.Measure((start, count) => ReadRows(layer, start, count), [layer.Places?.Sum(static place => place.Count) ?? RowCount, .. _rowShape]);
            }

            foreach (DenseContribution change in _target.Dense.Skip(_changes.Count))
            {
                _changes.Add(new(change.Open(_wide), Places(change)));
            }

            _segments = [.. Segments()];
            _isReady = true;
        }
    }

    /// <summary>Adds the changes to whole rows.</summary>
    /// <param name="memory">Memory that holds the rows of the base weight, flat and in its type.</param>
    /// <param name="from">Index of the first number in the memory.</param>
    /// <param name="count">Count of numbers.</param>
    /// <param name="position">Index of the first number in the weight.</param>
    /// <returns>What rounding leaves of the changes; zeros where it is not measured.</returns>
    public RoundingSums Merge(Tensor memory, int from, int count, long position)
    {
        // Pieces are many: where kernels add everything, nothing is allocated.
        RoundingSums sums = default;
        Span<byte> bytes = memory.bytes;
        int size = SafetensorsDTypes.Size(_target.DType);
        long first = position / _rowLength;
        long end = first + (count / _rowLength);
        foreach (Segment segment in _segments)
        {
            (long start, long stop) = (Math.Max(first, segment.Start), Math.Min(end, segment.End));
            if (start >= stop)
            {
                continue;
            }

            (int offset, int length) = (from + (int)((start - first) * _rowLength), (int)((stop - start) * _rowLength));
            if (segment.Kernel is MergeKernel kernel)
            {
                Span<byte> part = bytes.Slice(offset * size, length * size);
                long row = segment.Deltas[0].Row + start - segment.Start;
                if (_measures)
                {
                    sums = sums.Plus(kernel.AddMeasured(part, row, _stride));
                }
                else
                {
                    kernel.AddTo(part, _target.DType, row);
                }

                continue;
            }

            using IDisposable noGrad = no_grad();
            using DisposeScope scope = NewDisposeScope();
            sums = sums.Plus(MergeRows(memory.narrow(0, offset, length), segment, start - segment.Start));
        }

        return sums;
    }

    /// <summary>Counts a piece as written; the last one releases the factors.</summary>
    public void Done()
    {
        if (Interlocked.Decrement(ref _pending) == 0)
        {
            Dispose();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _deltas.ForEach(static delta => delta.Dispose());
        _changes.ForEach(static change => change.Rows.Dispose());
        _deltas.Clear();
        _changes.Clear();
    }

    /// <summary>Runs of rows that get the same changes; rows without changes are in none.</summary>
    private IEnumerable<Segment> Segments()
    {
        long[] cuts = [.. _deltas.SelectMany(static delta => delta.Places).Concat(_changes.SelectMany(static change => change.Places))
            .SelectMany(static place => (long[])[place.TensorRow, place.TensorRow + place.Count]).Distinct().Order()];
        foreach ((long start, long end) in cuts.Zip(cuts.Skip(1)))
        {
            (Delta, long)[] deltas = [.. _deltas.Select(delta => (delta, Row: RowOf(delta.Places, start))).Where(static entry => entry.Row >= 0)];
            (Change, long)[] changes = [.. _changes.Select(change => (change, Row: RowOf(change.Places, start))).Where(static entry => entry.Row >= 0)];
            if (deltas.Length + changes.Length > 0)
            {
                yield return new(start, end, deltas, changes);
            }
        }
    }

    private RoundingSums MergeRows(Tensor rows, Segment segment, long skipped)
    {
        Tensor shaped = rows.view([-1, .. _rowShape]);
        Tensor? sample = _measures ? shaped.narrow(0, 0, Math.Max(1, shaped.shape[0] / RowsForSample)).to(_wide, copy: true) : null;
        Tensor? original = segment.NeedsBase ? shaped.to(_wide, copy: true) : null;

        // Several changes are added in the wide type, so that the sum is rounded once.
        Tensor sum = segment.Deltas.Length + segment.Changes.Length > 1 && _type != _wide ? shaped.to(_wide) : shaped;
        segment.AddTo(sum, original, skipped);
        if (!ReferenceEquals(sum, shaped))
        {
            shaped.copy_(sum);
        }

        return sample is null ? default : Measure(sample, shaped, segment, skipped);
    }

    /// <summary>Merges the first rows again in the wide type, and compares.</summary>
    private RoundingSums Measure(Tensor before, Tensor merged, Segment segment, long skipped)
    {
        long count = before.shape[0];
        Tensor wanted = before.clone();
        segment.AddTo(wanted, segment.NeedsBase ? before : null, skipped);
        Tensor after = merged.narrow(0, 0, count).to(_wide);
        return RoundingSums.Of(Numbers(before), Numbers(wanted), Numbers(after)).Times((double)merged.shape[0] / count);
    }

    private static ReadOnlySpan<float> Numbers(Tensor tensor) => MemoryMarshal.Cast<byte, float>(tensor.bytes);

    private static long RowOf(RowPlace[] places, long row) =>
        Array.Find(places, place => place.TensorRow <= row && row < place.TensorRow + place.Count) is RowPlace found ? row - found.TensorRow + found.Row : -1;

    private RowPlace[] Places(RowContribution change) => [.. change.In(_target.Entry!.Name, RowCount)];

    // Rows of the base model that are those of a delta, wherever they are.
    private Tensor ReadRows(MergeContribution layer, long start, long count)
    {
        Tensor rows = empty(count * _rowLength, _wide);
        foreach (RowPlace place in layer.Places ?? [new(_target.Entry!.Name, 0, 0, RowCount)])
        {
            (long from, long to) = (Math.Max(start, place.Row), Math.Min(start + count, place.Row + place.Count));
            if (from < to)
            {
                _target.Source!.ReadRange(place.Tensor, (from - place.Row + place.TensorRow) * _rowLength, rows.narrow(0, (from - start) * _rowLength, (to - from) * _rowLength));
            }
        }

        return rows.view([count, .. _rowShape]);
    }

    private sealed record Delta(LayerDelta Layer, MergeKernel? Kernel, RowPlace[] Places) : IDisposable
    {
        public void Dispose()
        {
            Kernel?.Dispose();
            Layer.Dispose();
        }
    }

    private sealed record Change(IDeltaRows Rows, RowPlace[] Places);

    /// <summary>Rows that get the same changes, each from a row of its own on.</summary>
    private sealed record Segment(long Start, long End, (Delta Delta, long Row)[] Deltas, (Change Change, long Row)[] Changes)
    {
        /// <summary>The kernel where it adds all that there is.</summary>
        public MergeKernel? Kernel { get; } = Deltas is [(Delta { Kernel: MergeKernel kernel }, _)] && Changes.Length == 0 ? kernel : null;

        /// <summary>Whether a change needs the weight without any adapter.</summary>
        public bool NeedsBase { get; } = Array.Exists(Deltas, static entry => entry.Delta.Layer.NeedsBase);

        /// <summary>Adds the changes to some of the rows, one after the other.</summary>
        /// <param name="rows">The rows.</param>
        /// <param name="original">The same rows without any adapter, where a change needs them.</param>
        /// <param name="skipped">Rows before them.</param>
        public void AddTo(Tensor rows, Tensor? original, long skipped)
        {
            foreach ((Delta delta, long row) in Deltas)
            {
                delta.Layer.MergeInto(rows, original, row + skipped);
            }

            foreach ((Change change, long row) in Changes)
            {
                rows.copy_(rows + change.Rows.Read(row + skipped, rows.shape[0]).reshape(rows.shape));
            }
        }
    }
}
