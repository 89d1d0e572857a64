using LoKr.Core.Formats;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging;

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
