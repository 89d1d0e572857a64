using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The changes of one weight: read before its first piece is merged, released after its last piece is written.</summary>
internal sealed class MergeWork : IDisposable
{
    private readonly MergeTarget _target;
    private readonly long[] _rowShape;
    private readonly long _rowBytes;
    private readonly ScalarType _type;
    private readonly ScalarType _wide;
    private readonly (long Start, long Count)[] _runs;
    private readonly List<Delta> _deltas = [];
    private readonly List<Change> _changes = [];
    private readonly Lock _gate = new();
    private long[] _cuts = [];
    private bool _isReady;
    private int _pending;

    /// <summary>Cuts the weight into runs of rows; nothing is read yet.</summary>
    /// <param name="target">The weight; with changes.</param>
    public MergeWork(MergeTarget target)
    {
        _target = target;
        _rowShape = [.. target.Shape.Skip(1)];
        _rowBytes = target.RowBytes;
        _type = SafetensorsDTypes.Natural(target.DType);
        _wide = target.Precision;
        long wideRow = _rowBytes / SafetensorsDTypes.Size(target.DType) * _wide.ElementSize();
        long group = target.Layers.Count > 0 ? target.Layers[0].Group : 1;
        _runs = [.. LayerDelta.Runs(RowCount, group, target.Layers.Any(static layer => layer.Decomposes) || _wide == ScalarType.Float64 ? wideRow : _rowBytes, target.RowUnit)];
        _pending = _runs.Length;
    }

    /// <summary>The runs of rows, each merged as one piece.</summary>
    public IReadOnlyList<(long Start, long Count)> Runs => _runs;

    private long RowCount => _target.Shape.Count > 0 ? _target.Shape[0] : 1;

    /// <summary>Reads the factors, and for DoRA by column the weight once.</summary>
    public void Prepare()
    {
        lock (_gate)
        {
            if (_isReady)
            {
                return;
            }

            foreach (MergeContribution layer in _target.Layers.Skip(_deltas.Count))
            {
                LayerDelta delta = layer.Read(_wide);
                _deltas.Add(new(delta, delta.Kernel(_target.DType), Places(layer)));
                delta.Measure((start, count) => ReadRows(layer, start, count), [layer.Places?.Sum(static place => place.Count) ?? RowCount, .. _rowShape]);
            }

            foreach (DenseContribution change in _target.Dense.Skip(_changes.Count))
            {
                _changes.Add(new(change.Open(_wide), Places(change)));
            }

            // Where the rows of a change begin or end; the rows between two cuts get the same changes.
            _cuts = [.. _deltas.SelectMany(static delta => delta.Places).Concat(_changes.SelectMany(static change => change.Places))
                .SelectMany(static place => (long[])[place.TensorRow, place.TensorRow + place.Count]).Distinct().Order()];
            _isReady = true;
        }
    }

    /// <summary>Adds the changes to a run of rows.</summary>
    /// <param name="rows">The rows of the base weight, flat and in its type.</param>
    /// <param name="start">Position of the first byte in the weight.</param>
    public void Merge(Tensor rows, long start)
    {
        long length = _rowShape.Product();
        long first = start / _rowBytes;
        long end = first + (rows.numel() / length);
        using IDisposable noGrad = no_grad();
        for (long row = first; row < end;)
        {
            long next = Array.Find(_cuts, cut => cut > row) is long cut and > 0 ? Math.Min(cut, end) : end;
            using DisposeScope scope = NewDisposeScope();
            MergeRows(next - row == end - first ? rows : rows.narrow(0, (row - first) * length, (next - row) * length), row);
            row = next;
        }
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

    // Rows that all get the same changes.
    private void MergeRows(Tensor rows, long first)
    {
        (Delta Delta, long Row)[] deltas = [.. _deltas.Select(delta => (Delta: delta, Row: RowOf(delta.Places, first))).Where(static entry => entry.Row >= 0)];
        (Change Change, long Row)[] changes = [.. _changes.Select(change => (Change: change, Row: RowOf(change.Places, first))).Where(static entry => entry.Row >= 0)];
        if (deltas is [({ Kernel: MergeKernel kernel }, long only)] && changes.Length == 0)
        {
            kernel.AddTo(rows.bytes, _target.DType, only);
            return;
        }

        if (deltas.Length + changes.Length == 0)
        {
            return;
        }

        Tensor shaped = rows.view([-1, .. _rowShape]);
        Tensor? original = Array.Exists(deltas, static entry => entry.Delta.Layer.NeedsBase) ? shaped.to(_wide, copy: true) : null;

        // Several changes are added in the wide type, so that the sum is rounded once.
        Tensor sum = deltas.Length + changes.Length > 1 && _type != _wide ? shaped.to(_wide) : shaped;
        foreach ((Delta delta, long row) in deltas)
        {
            delta.Layer.MergeInto(sum, original, row);
        }

        foreach ((Change change, long row) in changes)
        {
            sum.copy_(sum + change.Rows.Read(row, sum.shape[0]).reshape(sum.shape));
        }

        if (!ReferenceEquals(sum, shaped))
        {
            shaped.copy_(sum);
        }
    }

    private static long RowOf(RowPlace[] places, long row) =>
        Array.Find(places, place => place.TensorRow <= row && row < place.TensorRow + place.Count) is RowPlace found ? row - found.TensorRow + found.Row : -1;

    private RowPlace[] Places(RowContribution change) => [.. change.In(_target.Entry!.Name, RowCount)];

    // Rows of the base model that are those of a delta, wherever they are.
    private Tensor ReadRows(MergeContribution layer, long start, long count)
    {
        long length = _rowShape.Product();
        Tensor rows = empty(count * length, _wide);
        foreach (RowPlace place in layer.Places ?? [new(_target.Entry!.Name, 0, 0, RowCount)])
        {
            (long from, long to) = (Math.Max(start, place.Row), Math.Min(start + count, place.Row + place.Count));
            if (from < to)
            {
                _target.Source!.ReadRange(place.Tensor, (from - place.Row + place.TensorRow) * length, rows.narrow(0, (from - start) * length, (to - from) * length));
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
}
