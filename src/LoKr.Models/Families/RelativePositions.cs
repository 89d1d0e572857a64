using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>Modules that score the distance of two positions, beside queries and keys.</summary>
internal interface IRelativePositions
{
    /// <summary>The scores of one forward pass; what they share is in the caller's dispose scope.</summary>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="device">Device of the model.</param>
    /// <param name="training">Whether dropout applies.</param>
    PositionScores Start(long length, Device device, bool training);
}

/// <summary>Scores by distance in one forward pass, which attention adds to those of queries and keys.</summary>
internal abstract class PositionScores
{
    /// <summary>The scores of a layer, [1 or batch, heads, length, length], as they are added after the division by the root of a head's width.</summary>
    public abstract Tensor Get(PositionQuery layer);

    /// <summary>The same for a pass whose layers run again in the backward pass, with tensors that stay until it is over.</summary>
    public abstract PositionScores HoldIn(ActivationCheckpoints checkpoints);
}

/// <summary>Inputs of a layer's scores by distance.</summary>
/// <param name="Query">Queries [batch, heads, length, width], not scaled.</param>
/// <param name="Key">Keys [batch, heads, length, width].</param>
/// <param name="ProjectQuery">Projection of positions to queries, or null.</param>
/// <param name="ProjectKey">Projection of positions to keys, or null.</param>
internal readonly record struct PositionQuery(Tensor Query, Tensor Key, nn.Module<Tensor, Tensor>? ProjectQuery, nn.Module<Tensor, Tensor>? ProjectKey);
