using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The deltas of one weight: read before its first piece is merged, released after its last piece is written.</summary>
internal sealed class MergeWork : IDisposable
{
    private readonly MergeTarget _target;
    private readonly long[] _rowShape;
    private readonly long _rowBytes;
    private readonly ScalarType _type;
    private readonly ScalarType _wide;
    private readonly (long Start, long Count)[] _runs;
    private readonly List<LayerDelta> _deltas = [];
    private readonly List<Tensor> _changes = [];
    private readonly Lock _gate = new();
    private MergeKernel? _kernel;
    private bool _isReady;
    private int _pending;

    /// <summary>Cuts the weight into runs of rows; nothing is read yet.</summary>
    /// <param name="target">The weight; with deltas.</param>
    public MergeWork(MergeTarget target)
    {
        _target = target;
        _rowShape = [.. target.Shape.Skip(1)];
        _rowBytes = target.RowBytes;
        _type = SafetensorsDTypes.Natural(target.DType);
        _wide = target.Precision;
        long wideRow = _rowBytes / SafetensorsDTypes.Size(target.DType) * _wide.ElementSize();
        long group = target.Layers.Count > 0 ? target.Layers[0].Group : 1;
        _runs = [.. LayerDelta.Runs(target.Shape[0], group, target.Layers.Any(static layer => layer.Decomposes) || _wide == ScalarType.Float64 ? wideRow : _rowBytes, target.RowUnit)];
        _pending = _runs.Length;
    }

    /// <summary>The runs of rows, each merged as one piece.</summary>
    public IReadOnlyList<(long Start, long Count)> Runs => _runs;

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
                _deltas.Add(delta);
                delta.Measure(ReadRows, _target.Shape);
            }

            foreach (AdapterTensor norm in _target.Norms.Skip(_changes.Count))
            {
                using Tensor change = norm.Read(_wide);
                _changes.Add((change * norm.Adapter.Weight).DetachFromDisposeScope());
            }

            _kernel = _deltas.Count == 1 && _changes.Count == 0 ? _deltas[0].Kernel(_target.DType) : null;
            _isReady = true;
        }
    }

    /// <summary>Adds the deltas to a run of rows.</summary>
    /// <param name="rows">The rows of the base weight, flat and in its type.</param>
    /// <param name="start">Position of the first byte in the weight.</param>
    public void Merge(Tensor rows, long start)
    {
        long first = start / _rowBytes;
        if (_kernel is { } kernel)
        {
            kernel.AddTo(rows.bytes, _target.DType, first);
            return;
        }

        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor shaped = rows.view([-1, .. _rowShape]);
        Tensor? original = _deltas.Exists(static delta => delta.NeedsBase) ? shaped.to(_wide, copy: true) : null;

        // Several deltas are added in the wide type, so that the sum is rounded once.
        Tensor sum = _deltas.Count + _changes.Count > 1 && _type != _wide ? shaped.to(_wide) : shaped;
        foreach (LayerDelta delta in _deltas)
        {
            delta.MergeInto(sum, original, first);
        }

        foreach (Tensor change in _changes)
        {
            sum.copy_(sum + change.narrow(0, first, sum.shape[0]));
        }

        if (!ReferenceEquals(sum, shaped))
        {
            shaped.copy_(sum);
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
        _kernel?.Dispose();
        foreach (LayerDelta delta in _deltas)
        {
            delta.Dispose();
        }

        foreach (Tensor change in _changes)
        {
            change.Dispose();
        }

        _deltas.Clear();
        _changes.Clear();
    }

    private Tensor ReadRows(long start, long count)
    {
        Tensor rows = empty([count, .. _rowShape], _wide);
        _target.Source!.ReadRange(_target.Entry!.Name, start * (_rowBytes / SafetensorsDTypes.Size(_target.DType)), rows);
        return rows;
    }
}
