using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging.Checkpoints;

/// <summary>The deltas of one weight: read when the first of its pieces is handed out, released after the last was merged.</summary>
internal sealed class MergeWork : IDisposable
{
    private readonly MergeTarget _target;
    private readonly long[] _rowShape;
    private readonly List<LayerDelta> _deltas = [];
    private readonly List<Tensor> _changes = [];
    private readonly Lock _gate = new();
    private RowKernel? _kernel;
    private bool _isReady;
    private int _pending;

    /// <summary>Describes the work; nothing is read yet.</summary>
    public MergeWork(MergeTarget target)
    {
        _target = target;
        _rowShape = [.. target.Shape.Skip(1)];
        Type = SafetensorsDTypes.Natural(target.DType);
        Wide = Type == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32;
        RowBytes = target.Header.ByteCount / target.Shape[0];
    }

    /// <summary>Type of the weight.</summary>
    public ScalarType Type { get; }

    /// <summary>Type in which deltas are added.</summary>
    public ScalarType Wide { get; }

    private long RowBytes { get; }

    /// <summary>Bytes of the weight in runs of rows.</summary>
    public IEnumerable<(long Start, int Count)> Runs()
    {
        long group = _target.Contributions.Count > 0 ? _target.Contributions[0].Group : 1;
        bool decomposes = _target.Contributions.Any(static contribution => contribution.Config.WeightDecompose);
        long wideRow = RowBytes / SafetensorsDTypes.Size(_target.DType) * Wide.ElementSize();
        foreach ((long start, long count) in LayerDelta.Runs(_target.Shape[0], group, decomposes ? wideRow : RowBytes))
        {
            _pending++;
            yield return (start * RowBytes, checked((int)(count * RowBytes)));
        }
    }

    /// <summary>Reads the factors, and for DoRA by column the weight once.</summary>
    public void Prepare()
    {
        lock (_gate)
        {
            for (int i = _deltas.Count; i < _target.Contributions.Count && !_isReady; i++)
            {
                LayerDelta delta = _target.Contributions[i].Read(Wide);
                _deltas.Add(delta);
                delta.Measure(ReadRows, _target.Shape);
            }

            for (int i = _changes.Count; i < _target.Changes.Count && !_isReady; i++)
            {
                (ITensorSource source, string key, double strength) = _target.Changes[i];
                using Tensor change = source.Read(key, Wide);
                _changes.Add((change * strength).DetachFromDisposeScope());
            }

            _kernel ??= _deltas.Count == 1 && _changes.Count == 0 ? _deltas[0].Kernel(_target.DType) : null;
            _isReady = true;
        }
    }

    /// <summary>Adds the deltas to a run of rows.</summary>
    /// <param name="rows">Flat memory with the bytes of the base, in the type of the weight.</param>
    /// <param name="start">First byte counted from the beginning of the weight.</param>
    public void Merge(Tensor rows, long start)
    {
        long first = start / RowBytes;
        if (_kernel is { } kernel)
        {
            kernel.MergeInto(rows.bytes, first);
            return;
        }

        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor shaped = rows.view([-1, .. _rowShape]);
        Tensor? original = _deltas.Exists(static delta => delta.NeedsBase) ? shaped.to(Wide, copy: true) : null;

        // Several deltas add up in the wide type, so that the sum is rounded once.
        Tensor sum = _deltas.Count + _changes.Count > 1 && Type != Wide ? shaped.to(Wide) : shaped;
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

    /// <summary>Counts a piece as done; the last one releases the factors.</summary>
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
        Tensor rows = empty([count, .. _rowShape], Wide);
        _target.Shard!.ReadRange(_target.Entry!.Name, start * (RowBytes / SafetensorsDTypes.Size(_target.DType)), rows);
        return rows;
    }
}

/// <summary>A run of bytes of a file of the result.</summary>
/// <param name="Offset">Where it begins in the file.</param>
/// <param name="Count">Number of bytes.</param>
/// <param name="Target">Tensor it belongs to, the first one of a run that is copied; null for the header.</param>
/// <param name="Start">Its first byte counted from the beginning of the tensor.</param>
/// <param name="Work">What all pieces of a weight that is merged share; null otherwise.</param>
internal sealed record MergePiece(long Offset, int Count, MergeTarget? Target, long Start, MergeWork? Work);

/// <summary>Memory of one thread that the pieces of a file pass through: one buffer for each element type it meets.</summary>
internal sealed class PieceBuffer : IDisposable
{
    private readonly Dictionary<ScalarType, Tensor> _buffers = [];

    /// <summary>A flat tensor of a number of bytes; its content is undefined, its memory that of the buffer.</summary>
    public Tensor Take(int byteCount, SafetensorsDType type)
    {
        ScalarType scalar = SafetensorsDTypes.Natural(type);
        long count = byteCount / SafetensorsDTypes.Size(type);
        if (!_buffers.TryGetValue(scalar, out Tensor? buffer) || buffer.numel() < count)
        {
            buffer?.Dispose();
            buffer = empty(Math.Max(count, LayerDelta.BlockBytes / SafetensorsDTypes.Size(type)), scalar).DetachFromDisposeScope();
            _buffers[scalar] = buffer;
        }

        return buffer.narrow(0, 0, count);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Tensor buffer in _buffers.Values)
        {
            buffer.Dispose();
        }
    }
}
