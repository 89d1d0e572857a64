using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>One adapter on one base layer before its factors are allocated.</summary>
/// <param name="Base">The base layer.</param>
/// <param name="Config">Configuration of the adapter, with the options that the file of this layer decides.</param>
/// <param name="Rank">Rank from the configuration or its pattern, or from the file.</param>
/// <param name="Alpha">Alpha from the configuration or its pattern.</param>
/// <param name="Shapes">Shapes of the factors.</param>
internal sealed record LayerPlan(BaseLayer Base, LoKrConfig Config, int Rank, double Alpha, FactorShapes Shapes)
{
    /// <summary>Suffixes and shapes of all tensors of the layer.</summary>
    public IEnumerable<(string Suffix, long[] Shape)> Tensors => LayerTensors.List(Shapes, Config, Base.OutFeatures, Base.InFeatures);

    /// <summary>The plan that a configuration makes for a layer.</summary>
    public static LayerPlan Create(BaseLayer layer, LoKrConfig config)
    {
        int rank = ModulePatterns.Find(config.RankPattern, layer.Name, config.R);
        LoKrConfigValidator.CheckRank(rank, $"the rank of '{layer.Name}'");
        double alpha = ModulePatterns.Find(config.AlphaPattern, layer.Name, config.Alpha);
        return new(layer, config, rank, alpha, FactorShapes.Create(layer.OutFeatures, layer.InFeatures, layer.Kernel, rank, config));
    }

    /// <summary>Puts the factors together.</summary>
    /// <param name="find">Finds a tensor by its suffix.</param>
    public KroneckerFactors Factors(Func<string, Tensor> find) =>
        new(Tensors.ToDictionary(static tensor => tensor.Suffix, tensor => find(tensor.Suffix), StringComparer.Ordinal), Base.Kernel, Shapes.Reversed);

    /// <summary>
    /// The plan with the shapes of a file, for adapters without a decompose factor that all layers share, and with the scalar and the
    /// magnitudes that the file has. Shapes that do not fit each other or the layer leave the plan as the configuration has it: the loader
    /// then reports the difference.
    /// </summary>
    /// <param name="layer">The base layer.</param>
    /// <param name="config">Configuration of the adapter.</param>
    /// <param name="tensors">Tensors of the file by module name and suffix.</param>
    public static LayerPlan FromFile(BaseLayer layer, LoKrConfig config, IReadOnlyDictionary<string, Tensor> tensors)
    {
        LayerPlan plan = Create(layer, config);
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
            return plan;
        }

        long fileRank = b2?[0] ?? b1?[0] ?? plan.Rank;
        bool reversed = layer.Kernel.Count == 1 && a2 is null && config.Conv1dLayout == Conv1dLayout.Peft;
        long[]? magnitude = Shape(FactorNames.DoraScale);
        WeightDecomposeAxis axis = magnitude is null || magnitude.Product() != layer.OutFeatures
            || (magnitude.Length > 1 && magnitude[0] != layer.OutFeatures) ? WeightDecomposeAxis.Input : WeightDecomposeAxis.Output;
        return plan with
        {
            Rank = (int)fileRank,
            Shapes = new(l, m, k, n, layer.Kernel, fileRank, a1 is not null, a2 is not null, core is not null, reversed) { OuterRank = b1 is not null && b1[0] != fileRank ? b1[0] : null },
            Config = config with
            {
                WeightDecompose = magnitude is not null,
                WeightDecomposeAxis = magnitude is null ? config.WeightDecomposeAxis : axis,
                UseScalar = Shape(FactorNames.Scalar) is not null,
            },
        };
    }
}
