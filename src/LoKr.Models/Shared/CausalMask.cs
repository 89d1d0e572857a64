using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Shared;

/// <summary>Masks of layers that only look back, made only where torch's causal attention cannot do without.</summary>
internal static class CausalMask
{
    /// <summary>Whether every position sees itself and all before it, so that no mask is needed.</summary>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="window">Most positions that one sees, itself included; null for all.</param>
    public static bool IsPlain(Tensor? padding, long length, int? window) => padding is null && (window is null || length <= window);

    /// <summary>
    /// The boolean mask (true takes part), [1 or batch, 1, length, length], or null where <see cref="IsPlain"/> says that none is needed.
    /// </summary>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="window">Most positions that one sees, itself included; null for all.</param>
    /// <param name="device">Device of the mask.</param>
    public static Tensor? Create(Tensor? padding, long length, int? window, Device device)
    {
        if (IsPlain(padding, length, window))
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor mask = ones(length, length, dtype: ScalarType.Bool, device: device).tril_();
        if (window is int width && width < length)
        {
            mask = mask.triu_(1 - width);
        }

        mask = mask.unsqueeze(0).unsqueeze(0);
        return (padding is null ? mask : mask.logical_and(padding)).MoveToOuterDisposeScope();
    }
}
