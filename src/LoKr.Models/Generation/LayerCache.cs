using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Generation;

/// <summary>
/// Keys and values of one layer. The memory doubles as it fills; a layer with an attention window never holds more than the window, in a
/// ring: attention does not care in which order keys lie, because the position is turned into them.
/// </summary>
/// <param name="window">How many positions the layer looks back, itself included; null for all.</param>
internal sealed class LayerCache(int? window) : IDisposable
{
    private const long Smallest = 64;

    private Tensor? _key;
    private Tensor? _value;

    /// <summary>Adds positions.</summary>
    /// <param name="key">[1, heads, new positions, width].</param>
    /// <param name="value">[1, heads, new positions, width].</param>
    /// <param name="start">The first new position.</param>
    /// <returns>What the new positions look at: views of the cache or, for a prompt, what was given.</returns>
    public (Tensor Key, Tensor Value) Append(Tensor key, Tensor value, long start)
    {
        long count = key.shape[2];
        long kept = Math.Min(start + count, window ?? long.MaxValue);
        _key = Reserve(_key, key, start, kept);
        _value = Reserve(_value, value, start, kept);
        if (start == 0)
        {
            Fill(_key, key, kept);
            Fill(_value, value, kept);
            return (key, value);
        }

        if (count != 1)
        {
            throw new NotSupportedException("After the prompt, positions come one at a time.");
        }

        Put(_key, key, start);
        Put(_value, value, start);
        return (_key.narrow(2, 0, kept), _value.narrow(2, 0, kept));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _key?.Dispose();
        _value?.Dispose();
        _key = _value = null;
    }

    private Tensor Reserve(Tensor? old, Tensor like, long start, long needed)
    {
        if (old is not null && old.shape[2] >= needed)
        {
            return old;
        }

        long[] shape = like.shape;
        shape[2] = Math.Min(window ?? long.MaxValue, Math.Max(Smallest, (long)System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)needed)));
        Tensor grown = empty(shape, like.dtype, like.device).DetachFromDisposeScope();
        if (old is not null)
        {
            using (old)
            using (DisposeScope scope = NewDisposeScope())
            {
                grown.narrow(2, 0, start).copy_(old.narrow(2, 0, start));
            }
        }

        return grown;
    }

    // A full ring holds position p in slot p mod window, whatever the length of the prompt.
    private static void Fill(Tensor ring, Tensor all, long kept)
    {
        using DisposeScope scope = NewDisposeScope();
        long dropped = all.shape[2] - kept;
        long first = dropped % kept;
        ring.narrow(2, first, kept - first).copy_(all.narrow(2, dropped, kept - first));
        if (first > 0)
        {
            ring.narrow(2, 0, first).copy_(all.narrow(2, dropped + kept - first, first));
        }
    }

    private void Put(Tensor ring, Tensor one, long position)
    {
        using DisposeScope scope = NewDisposeScope();
        ring.narrow(2, window is int size ? position % size : position, 1).copy_(one);
    }
}
