using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Shared;

/// <summary>The turns of the positions of one forward pass.</summary>
/// <param name="Cosine">[length, width].</param>
/// <param name="Sine">[length, width], the first half negated.</param>
internal readonly record struct RotaryTurn(Tensor Cosine, Tensor Sine)
{
    /// <summary>
    /// Turns channel i with channel i + width/2 of every head: x·cos + (−x₂, x₁)·sin. The signs are in the sine, so that the swapped halves
    /// are one rotation of the last dimension.
    /// </summary>
    /// <param name="x">[batch, length, heads, head width].</param>
    public Tensor Apply(Tensor x)
    {
        using DisposeScope scope = NewDisposeScope();
        long width = Cosine.shape[1];
        long all = x.shape[^1];
        Tensor part = width == all ? x : x.narrow(-1, 0, width);
        Tensor turned = (part * Cosine.unsqueeze(1)).addcmul_(part.roll(width / 2, -1), Sine.unsqueeze(1), 1);
        return (width == all ? turned : cat([turned, x.narrow(-1, width, all - width)], -1)).MoveToOuterDisposeScope();
    }
}
