using LoKr.Core.Adapters;
using LoKr.Core.Formats;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Merging;

/// <summary>One adapter's part in one weight of a checkpoint; its factors are read when the weight is merged.</summary>
/// <param name="Source">Tensors of the adapter.</param>
/// <param name="Config">Configuration of the adapter.</param>
/// <param name="Module">Name of the module in the adapter.</param>
/// <param name="Shapes">Shapes of the factors.</param>
/// <param name="Tensors">Suffixes and shapes of the layer's tensors.</param>
/// <param name="Scaling">What w1 ⊗ w2 is multiplied with, as trained.</param>
/// <param name="Strength">Strength of the adapter.</param>
/// <param name="IsTransposed">Whether the weight is stored in×out.</param>
internal sealed record MergeContribution(
    ITensorSource Source,
    LoKrConfig Config,
    string Module,
    FactorShapes Shapes,
    IReadOnlyList<(string Suffix, long[] Shape)> Tensors,
    double Scaling,
    double Strength,
    bool IsTransposed)
{
    /// <summary>Rows of the stored weight that share a row of the outer factor.</summary>
    public long Group => RowBlock.GroupOf(IsTransposed, Shapes.Reversed, Shapes.L, Shapes.K, Shapes.N);

    /// <summary>Reads the factors.</summary>
    /// <param name="type">Type in which they are applied.</param>
    public LayerDelta Read(ScalarType type)
    {
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> tensors = new(StringComparer.Ordinal);
        foreach ((string suffix, long[] shape) in Tensors)
        {
            string key = $"{Module}.{suffix}";
            if (Source.Entries.ContainsKey(key))
            {
                tensors.Add(suffix, Source.Read(key, type).reshape(shape));
            }
        }

        return new LayerDelta(new KroneckerFactors(tensors, Shapes.Kernel, Shapes.Reversed), Config, Scaling, Strength, IsTransposed);
    }
}
