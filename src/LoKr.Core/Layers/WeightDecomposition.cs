using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>
/// DoRA on w1 ⊗ w2 as LyCORIS has it (<c>weight_decompose</c>): W' = (W + Δ)·magnitude/(‖W + Δ‖ + ε), norms by output row or by input
/// column and part of the gradient. A strength s other than 1 turns the quotient q into s·(q − 1) + 1. W + Δ is never built.
/// </summary>
internal static class WeightDecomposition
{
    /// <summary>Shape of the magnitudes, that of LyCORIS's files.</summary>
    public static long[] Shape(long outFeatures, long inFeatures, IReadOnlyList<long> kernel, WeightDecomposeAxis axis) => axis == WeightDecomposeAxis.Output
        ? [outFeatures, 1, .. kernel.Select(static _ => 1L)]
        : [1, inFeatures, .. kernel.Select(static _ => 1L)];

    /// <summary>Magnitudes to start with: the norms of the base weight.</summary>
    public static void Initialize(Tensor magnitude, BaseLayer layer, WeightDecomposeAxis axis)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor weight = layer.AsMatrix(layer.Weight).to(magnitude.dtype);
        magnitude.copy_(linalg.vector_norm(weight.reshape(weight.shape[0], weight.shape[1], -1), 2, axis == WeightDecomposeAxis.Output ? [1, 2] : [0, 2], false).reshape(magnitude.shape));
    }

    /// <summary>What the rows, or columns, of W + Δ are multiplied with.</summary>
    /// <param name="layer">The adapted layer.</param>
    /// <param name="baseWeight">The base weight without any adapter, as the layer stores it.</param>
    public static Tensor Quotients(LoKrLayer layer, Tensor baseWeight)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor magnitude = layer.Factors.Tensors[FactorNames.DoraScale];
        Tensor weight = layer.BaseLayer.AsMatrix(baseWeight.detach()).to(magnitude.dtype).contiguous();
        Tensor norms = layer.Factors.SquaredNorms(weight, layer.DefaultScaling, layer.Config.WeightDecomposeAxis == WeightDecomposeAxis.Input).sqrt();
        double epsilon = magnitude.dtype is ScalarType.Float64 ? 2.220446049250313e-16 : 1.1920928955078125e-07;
        Tensor quotients = magnitude.reshape(-1) / (norms + epsilon);
        return (layer.Scale == 1 ? quotients : ((quotients - 1) * layer.Scale) + 1).MoveToOuterDisposeScope();
    }

    /// <summary>What the adapter adds to the base output.</summary>
    /// <param name="layer">The adapted layer.</param>
    /// <param name="x">Input in the type of the factors.</param>
    /// <param name="y">Base output with bias.</param>
    public static Tensor Contribution(LoKrLayer layer, Tensor x, Tensor y)
    {
        using DisposeScope scope = NewDisposeScope();
        BaseLayer target = layer.BaseLayer;
        Tensor quotients = Quotients(layer, target.Weight);
        Tensor plain = target.WithoutBias(y, layer.Factors.DType);
        Tensor result = layer.Config.WeightDecomposeAxis == WeightDecomposeAxis.Input
            ? target.ApplyScaledColumns(x, plain, layer.Factors, layer.DefaultScaling, quotients)
            : target.ScaleRows(plain, x, quotients - 1) + target.ScaleRows(target.Apply(x, layer.Factors, layer.DefaultScaling), x, quotients);
        return result.MoveToOuterDisposeScope();
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
        using LayerDelta delta = new(layer.Factors, layer.Config, layer.DefaultScaling, layer.Scale, isTransposed);
        Tensor original = baseWeight.to(weight.device);
        delta.Measure((start, count) => original.narrow(0, start, count), weight.shape);
        foreach ((long start, long count) in LayerDelta.Runs(weight.shape[0], delta.Group, weight.stride(0) * 4))
        {
            delta.MergeInto(weight.narrow(0, start, count), original.narrow(0, start, count), start);
        }
    }
}
