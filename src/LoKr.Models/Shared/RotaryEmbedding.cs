using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Shared;

/// <summary>
/// Cosine and sine tables of rotary position embeddings, computed in float32 and kept for one device, type and kind of length at a time,
/// no longer than twice the longest sequence seen. Where the turns depend on the length of the sequence (dynamic, longrope), keys that a
/// cache holds keep the turn they were made with, as in transformers. The model that makes it disposes it.
/// </summary>
internal sealed class RotaryEmbedding(RopeSettings settings) : IDisposable
{
    private const long ShortestTable = 256;

    private (DeviceType Device, int Index, ScalarType Type, bool Long) _key;
    private Tensor? _cosine;
    private Tensor? _sine;

    /// <summary>The turns of consecutive positions; views of the table, in the caller's dispose scope.</summary>
    /// <param name="start">First position.</param>
    /// <param name="length">Number of positions.</param>
    /// <param name="device">Device of the model.</param>
    /// <param name="dtype">Type of the model.</param>
    public RotaryTurn Get(long start, long length, Device device, ScalarType dtype)
    {
        long end = start + length;
        if (settings.Type == "dynamic" && end > settings.Positions)
        {
            // Every length has frequencies of its own here: nothing worth keeping.
            (Tensor cosine, Tensor sine) = Compute(start, end, end, device, dtype);
            return new RotaryTurn(cosine, sine);
        }

        bool isLong = settings.Type == "longrope" && RopeFrequencies.IsLong(settings, end);
        (DeviceType, int, ScalarType, bool) key = (device.type, device.index, dtype, isLong);
        if (_cosine is null || _key != key || _cosine.shape[0] < end)
        {
            Grow(end, isLong, device, dtype);
            _key = key;
        }

        return new RotaryTurn(_cosine!.narrow(0, start, length), _sine!.narrow(0, start, length));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _cosine?.Dispose();
        _sine?.Dispose();
        _cosine = _sine = null;
    }

    private void Grow(long end, bool isLong, Device device, ScalarType dtype)
    {
        long rows = Math.Max(ShortestTable, (long)System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)end));
        rows = Math.Min(rows, Math.Max(end, settings.LongestSequence));
        (Tensor cosine, Tensor sine) = Compute(0, rows, isLong ? end : 0, device, dtype);
        Dispose();
        _cosine = cosine.DetachFromDisposeScope();
        _sine = sine.DetachFromDisposeScope();
    }

    /// <summary>Tables [positions, width]: the sine's first half is negated, see <see cref="RotaryTurn.Apply"/>.</summary>
    private (Tensor Cosine, Tensor Sine) Compute(long start, long end, long sequenceLength, Device device, ScalarType dtype)
    {
        // A table made in inference mode could not be used in training later.
        using IDisposable normal = inference_mode(false);
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        (Tensor frequencies, double factor) = RopeFrequencies.Compute(settings, sequenceLength);
        Tensor angles = arange(start, end, ScalarType.Float32, device).unsqueeze(1) * frequencies.to(device).unsqueeze(0);
        Tensor cosine = angles.cos() * factor;
        Tensor sine = angles.sin() * factor;
        return (
            cat([cosine, cosine], 1).to(dtype).MoveToOuterDisposeScope(),
            cat([-sine, sine], 1).to(dtype).MoveToOuterDisposeScope());
    }
}
