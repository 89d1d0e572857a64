using LoKr.Core.Adapters;
using static TorchSharp.torch;

namespace LoKr.Core.Merging;

/// <summary>One base weight that an adapter changes.</summary>
/// <param name="Name">What tells it from the others: the full name of the layer, or of the parameter of a norm.</param>
/// <param name="Weight">The weight; looked up each time, because moving a model replaces parameters.</param>
/// <param name="DType">Type in which the change is held.</param>
/// <param name="MergeInto">Adds the change to the weight (first), in place, given the weight without any adapter (second).</param>
internal sealed record WeightChange(string Name, Func<TorchSharp.Modules.Parameter> Weight, ScalarType DType, Action<Tensor, Tensor> MergeInto)
{
    /// <summary>All that an adapter changes.</summary>
    public static IEnumerable<WeightChange> Of(LoKrAdapter adapter)
    {
        foreach (LoKrLayer layer in adapter.Layers)
        {
            yield return new(layer.ModuleName, () => layer.BaseLayer.Weight, layer.Factors.DType, layer.MergeInto);
        }

        foreach (LoKrNorm norm in adapter.Norms)
        {
            yield return new(norm.ModuleName + ".weight", () => norm.Target.Weight, norm.Weight.dtype, (weight, _) => Add(weight, norm.Weight, norm.Scale));
            if (norm.Bias is Tensor change)
            {
                yield return new(norm.ModuleName + ".bias", () => norm.Target.Bias!, change.dtype, (bias, _) => Add(bias, change, norm.Scale));
            }
        }
    }

    private static void Add(Tensor weight, Tensor change, double scale)
    {
        using Tensor scaled = change * scale;
        using Tensor sum = weight + scaled;
        weight.copy_(sum);
    }
}
