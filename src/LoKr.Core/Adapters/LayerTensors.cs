namespace LoKr.Core.Adapters;

/// <summary>The tensors that one adapted layer has in a file.</summary>
internal static class LayerTensors
{
    /// <summary>Suffixes and shapes.</summary>
    /// <param name="shapes">Shapes of the factors.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="outFeatures">Output size of the layer.</param>
    /// <param name="inFeatures">Input size of the layer.</param>
    public static IEnumerable<(string Suffix, long[] Shape)> List(FactorShapes shapes, LoKrConfig config, long outFeatures, long inFeatures)
    {
        foreach ((string Suffix, long[] Shape) tensor in shapes.Tensors())
        {
            // PEFT gives the core of a one-dimensional convolution a second kernel dimension of 1; LyCORIS does not.
            yield return tensor.Suffix == FactorNames.T2 && shapes.Kernel.Count == 1 && config.Conv1dLayout == Conv1dLayout.Kronecker
                ? (tensor.Suffix, tensor.Shape[..3])
                : tensor;
        }

        if (config.UseScalar)
        {
            yield return (FactorNames.Scalar, []);
        }

        if (config.WeightDecompose)
        {
            yield return (FactorNames.DoraScale, WeightDecomposition.Shape(outFeatures, inFeatures, shapes.Kernel, config.WeightDecomposeAxis));
        }
    }
}
