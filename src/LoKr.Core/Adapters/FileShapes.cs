using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>Shapes of the factors of one layer as a file has them, where no decompose factor gives those of all layers.</summary>
internal static class FileShapes
{
    /// <summary>
    /// Reads the shapes and what the file has beside the factors. Null where they do not fit each other or the layer: the loader
    /// then compares with what the configuration asks for, and names the difference.
    /// </summary>
    /// <param name="layer">The base layer.</param>
    /// <param name="config">Configuration of the adapter.</param>
    /// <param name="rank">Rank by configuration, for a layer with full factors.</param>
    /// <param name="tensors">Tensors by module name and suffix.</param>
    public static (FactorShapes Shapes, LoKrConfig Config)? Read(BaseLayer layer, LoKrConfig config, int rank, IReadOnlyDictionary<string, Tensor> tensors)
    {
        long[]? Shape(string suffix) => tensors.TryGetValue(ModuleTree.Join(layer.Name, suffix), out Tensor? tensor) ? tensor.shape : null;
        (long[]? a1, long[]? b1, long[]? a2, long[]? b2, long[]? core) = (Shape(FactorNames.W1A), Shape(FactorNames.W1B), Shape(FactorNames.W2A), Shape(FactorNames.W2B), Shape(FactorNames.T2));
        long[]? outer = Shape(FactorNames.W1) ?? (a1 is [_, _] && b1 is [_, _] ? [a1[0], b1[1]] : null);
        long kernel = layer.Kernel.Product();
        long[]? inner = Shape(FactorNames.W2)?[..2]
            ?? (a2 is not [_, _] || b2 is not [_, _] ? null
            : core is not null ? [a2[1], b2[1]]
            : b2[1] % kernel == 0 ? [a2[0], b2[1] / kernel] : null);
        if (outer is not [long l, long m] || inner is not [long k, long n] || l * k != layer.OutFeatures || m * n != layer.InFeatures)
        {
            return null;
        }

        long fileRank = b2?[0] ?? b1?[0] ?? rank;
        bool reversed = layer.Kernel.Count == 1 && a2 is null && config.Conv1dLayout == Conv1dLayout.Peft;
        long[]? magnitude = Shape(FactorNames.DoraScale);
        WeightDecomposeAxis axis = magnitude is null || magnitude.Product() != layer.OutFeatures
            || (magnitude.Length > 1 && magnitude[0] != layer.OutFeatures) ? WeightDecomposeAxis.Input : WeightDecomposeAxis.Output;
        return (
            new(l, m, k, n, layer.Kernel, fileRank, a1 is not null, a2 is not null, core is not null, reversed) { OuterRank = b1 is not null && b1[0] != fileRank ? b1[0] : null },
            config with
            {
                WeightDecompose = magnitude is not null,
                WeightDecomposeAxis = magnitude is null ? config.WeightDecomposeAxis : axis,
                UseScalar = Shape(FactorNames.Scalar) is not null,
            });
    }
}
