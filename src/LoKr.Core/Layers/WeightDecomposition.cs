using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary><see cref="Dora">DoRA</see> on one adapted layer: its contribution to the output, and its merge. W + Δ is never formed whole.</summary>
internal static class WeightDecomposition
{
    /// <summary>Sets the initial magnitudes to the norms of the base weight.</summary>
    public static void Initialize(Tensor magnitude, BaseLayer layer, WeightDecomposeAxis axis)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor weight = layer.AsMatrix(layer.Weight).to(magnitude.dtype);
        Tensor flat = weight.reshape(weight.shape[0], weight.shape[1], -1);
        magnitude.copy_(linalg.vector_norm(flat, 2, axis == WeightDecomposeAxis.Output ? [1, 2] : [0, 2], false).reshape(magnitude.shape));
    }

    /// <summary>Computes the contribution of the adapter to the base output; the norms are part of the gradient.</summary>
    /// <param name="layer">The adapted layer.</param>
    /// <param name="x">Input in the type of the factors.</param>
    /// <param name="y">Base output with bias.</param>
    public static Tensor Contribution(LoKrLayer layer, Tensor x, Tensor y)
    {
        using DisposeScope scope = NewDisposeScope();
        BaseLayer target = layer.BaseLayer;
        Tensor quotients = Quotients(layer);
        Tensor plain = target.WithoutBias(y, layer.Factors.DType);
        Tensor result = layer.Config.WeightDecomposeAxis == WeightDecomposeAxis.Input
            ? target.ApplyScaledColumns(x, plain, layer.Factors, layer.DefaultScaling, quotients)
            : target.ScaleRows(plain, x, quotients - 1) + target.ScaleRows(target.Apply(x, layer.Factors, layer.DefaultScaling), x, quotients);
        return Dora.Applied(result, layer.Strength).MoveToOuterDisposeScope();
    }

    /// <summary>Adds W' − W to a weight, in place.</summary>
    /// <param name="layer">The adapted layer.</param>
    /// <param name="weight">The weight as the layer stores it, other adapters included.</param>
    /// <param name="baseWeight">The base weight without any adapter.</param>
    public static void MergeInto(LoKrLayer layer, Tensor weight, Tensor baseWeight)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        bool isTransposed = layer.BaseLayer is TransposedLinearBaseLayer;
        using LayerDelta delta = new(layer.Factors, layer.Config.WeightDecomposeAxis, layer.DefaultScaling, layer.Strength, isTransposed);
        Tensor original = baseWeight.to(weight.device);
        delta.Measure((start, count) => original.narrow(0, start, count), weight.shape);
        foreach ((long start, long count) in LayerDelta.Runs(weight.shape[0], delta.Group, weight.stride(0) * 4))
        {
            delta.MergeInto(weight.narrow(0, start, count), original.narrow(0, start, count), start);
        }
    }

    /// <summary>The factors by which the rows, or columns, of W + Δ are multiplied.</summary>
    private static Tensor Quotients(LoKrLayer layer)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor magnitude = layer.Factors.Tensors[FactorNames.DoraScale];
        Tensor weight = layer.BaseLayer.AsMatrix(layer.BaseLayer.Weight.detach()).to(magnitude.dtype).contiguous();
        Tensor norms = Dora.SquaredNorms(layer.Factors, weight, layer.DefaultScaling, layer.Config.WeightDecomposeAxis).sqrt();
        return Dora.Quotients(magnitude.reshape(-1), norms, layer.Strength).MoveToOuterDisposeScope();
    }
}
