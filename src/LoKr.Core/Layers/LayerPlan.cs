using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>One adapter on one base layer before its factors are allocated.</summary>
/// <param name="Base">The base layer.</param>
/// <param name="Settings">What the adapter's configuration, or its file, says about the layer.</param>
internal sealed record LayerPlan(BaseLayer Base, LayerSettings Settings)
{
    /// <summary>Configuration of the adapter, with the options that the file of this layer decides.</summary>
    public LoKrConfig Config => Settings.Config;

    /// <summary>Rank from the configuration or its pattern, or from the file.</summary>
    public int Rank => Settings.Rank;

    /// <summary>Alpha from the configuration or its pattern.</summary>
    public double Alpha => Settings.Alpha;

    /// <summary>Shapes of the factors.</summary>
    public FactorShapes Shapes => Settings.Shapes;

    /// <summary>Suffixes and shapes of all tensors of the layer.</summary>
    public IEnumerable<(string Suffix, long[] Shape)> Tensors => Settings.Tensors;

    /// <summary>The plan for a layer.</summary>
    /// <param name="layer">The base layer.</param>
    /// <param name="ranks">Ranks and configuration of the adapter.</param>
    /// <param name="fileShape">Shape of a tensor of the layer in the adapter's file, by suffix; null for an adapter without a file.</param>
    public static LayerPlan Create(BaseLayer layer, ModuleRanks ranks, Func<string, IReadOnlyList<long>?>? fileShape = null) =>
        new(layer, LayerSettings.Create(layer.Name, new(layer.OutFeatures, layer.InFeatures, layer.Kernel), ranks, fileShape));

    /// <summary>Puts the factors together.</summary>
    /// <param name="find">Finds a tensor by its suffix.</param>
    public KroneckerFactors Factors(Func<string, Tensor> find) =>
        new(Tensors.ToDictionary(static tensor => tensor.Suffix, tensor => find(tensor.Suffix), StringComparer.Ordinal), Base.Kernel, Shapes.Reversed);
}

/// <summary>Sizes of a layer that carries an adapter.</summary>
/// <param name="OutFeatures">Output size.</param>
/// <param name="InFeatures">Input size; input channels per group, for a convolution.</param>
/// <param name="Kernel">Kernel size; empty for a linear layer.</param>
internal sealed record LayerSize(long OutFeatures, long InFeatures, IReadOnlyList<long> Kernel);

/// <summary>
/// Settings of one layer, from an adapter's configuration or its file. Adapters in memory and merges on disk ask here, so that both see the
/// same factors.
/// </summary>
/// <param name="Size">Sizes of the layer.</param>
/// <param name="Config">Configuration of the adapter, with the options that the file of this layer decides.</param>
/// <param name="Rank">Rank from the configuration or its pattern, or from the file.</param>
/// <param name="Alpha">Alpha from the configuration or its pattern.</param>
/// <param name="Shapes">Shapes of the factors.</param>
internal sealed record LayerSettings(LayerSize Size, LoKrConfig Config, int Rank, double Alpha, FactorShapes Shapes)
{
    /// <summary>Suffixes and shapes of all tensors of the layer.</summary>
    public IEnumerable<(string Suffix, long[] Shape)> Tensors => LayerTensors.List(Shapes, Config, Size.OutFeatures, Size.InFeatures);

    /// <summary>Scale of w1 ⊗ w2 as trained.</summary>
    public double Scaling => LoKrScaling.Compute(Config, Rank, Alpha, Shapes.BothFull);

    /// <summary>The settings of one layer.</summary>
    /// <param name="name">Full name of the layer, in the names of the configuration.</param>
    /// <param name="size">Sizes of the layer.</param>
    /// <param name="ranks">Ranks and configuration of the adapter.</param>
    /// <param name="fileShape">
    /// Shape of a tensor of the layer in the adapter's file, by suffix, which counts where the configuration says so
    /// (<see cref="LoKrConfig.ShapesFromFile"/>); null for an adapter without a file.
    /// </param>
    public static LayerSettings Create(string name, LayerSize size, ModuleRanks ranks, Func<string, IReadOnlyList<long>?>? fileShape)
    {
        LoKrConfig config = ranks.Config;
        int rank = ranks.Rank(name);
        LoKrConfigValidator.CheckRank(rank, $"the rank of '{name}'");
        double alpha = ranks.Alpha(name);
        LayerSettings settings = new(size, config, rank, alpha, FactorShapes.Create(size.OutFeatures, size.InFeatures, size.Kernel, rank, config));
        return fileShape is not null && config.ShapesFromFile ? settings.FromFile(fileShape) : settings;
    }

    /// <summary>
    /// The settings with the shapes of a file, for adapters without a decompose factor that all layers share, and with the scalar and the
    /// magnitudes that the file has. Shapes that do not fit each other or the layer leave the settings as the configuration has them: the
    /// loader then reports the difference.
    /// </summary>
    private LayerSettings FromFile(Func<string, IReadOnlyList<long>?> shape)
    {
        (IReadOnlyList<long>? a1, IReadOnlyList<long>? b1) = (shape(FactorNames.W1A), shape(FactorNames.W1B));
        (IReadOnlyList<long>? a2, IReadOnlyList<long>? b2, IReadOnlyList<long>? core) = (shape(FactorNames.W2A), shape(FactorNames.W2B), shape(FactorNames.T2));
        long[]? outer = shape(FactorNames.W1) is { } w1 ? [.. w1] : a1 is [_, _] && b1 is [_, _] ? [a1[0], b1[1]] : null;
        long kernel = Size.Kernel.Product();
        long[]? inner = shape(FactorNames.W2) is { } w2 ? [.. w2.Take(2)]
            : a2 is not [_, _] || b2 is not [_, _] ? null
            : core is not null ? [a2[1], b2[1]]
            : b2[1] % kernel == 0 ? [a2[0], b2[1] / kernel] : null;
        if (outer is not [long l, long m] || inner is not [long k, long n] || l * k != Size.OutFeatures || m * n != Size.InFeatures)
        {
            return this;
        }

        long fileRank = b2?[0] ?? b1?[0] ?? Rank;
        bool reversed = Size.Kernel.Count == 1 && a2 is null && Config.Conv1dLayout == Conv1dLayout.Peft;
        IReadOnlyList<long>? magnitude = shape(FactorNames.DoraScale);
        WeightDecomposeAxis axis = magnitude is null || magnitude.Product() != Size.OutFeatures
            || (magnitude.Count > 1 && magnitude[0] != Size.OutFeatures) ? WeightDecomposeAxis.Input : WeightDecomposeAxis.Output;
        return this with
        {
            Rank = (int)fileRank,
            Shapes = new(l, m, k, n, Size.Kernel, fileRank, a1 is not null, a2 is not null, core is not null, reversed) { OuterRank = b1 is not null && b1[0] != fileRank ? b1[0] : null },
            Config = Config with
            {
                WeightDecompose = magnitude is not null,
                WeightDecomposeAxis = magnitude is null ? Config.WeightDecomposeAxis : axis,
                UseScalar = shape(FactorNames.Scalar) is not null,
            },
        };
    }
}
