using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Nn;
using LoKr.Core.Safetensors;
using LoKr.Core.Targeting;
using TorchSharp;
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

/// <summary>One adapter on one base layer: factors, scaling, dropouts. Adds its contribution to the base output without building w1 ⊗ w2.</summary>
public sealed class LoKrLayer
{
    private readonly bool _hasDropout;
    private long _callCount;

    internal LoKrLayer(LayerPlan plan, KroneckerFactors factors)
    {
        Plan = plan;
        Factors = factors;
        _hasDropout = Config.ModuleDropout > 0 || Config.RankDropout > 0;
        DefaultScaling = LoKrScaling.Compute(Config, R, Alpha, Shapes.BothFull);
    }

    /// <summary>Full name of the base layer.</summary>
    public string ModuleName => BaseLayer.Name;

    /// <summary>The base layer.</summary>
    public nn.Module Module => BaseLayer.Module;

    /// <summary>The factors; other ones after the model was moved to another device.</summary>
    public KroneckerFactors Factors { get; private set; }

    /// <summary>Shapes of the factors.</summary>
    public FactorShapes Shapes => Plan.Shapes;

    /// <summary>Rank from the config or its pattern.</summary>
    public int R => Plan.Rank;

    /// <summary>Alpha from the config or its pattern.</summary>
    public double Alpha => Plan.Alpha;

    /// <summary>Factor of w1 ⊗ w2: the one of the scaling convention times <see cref="Scale"/>.</summary>
    public double Scaling => DefaultScaling * Scale;

    /// <summary>Strength of the adapter on this layer, 1 as trained (PEFT <c>set_scale</c>).</summary>
    public double Scale { get; set; } = 1;

    /// <summary>How often the layer has run since it was attached; zero after a training step means that the hook of the base layer never runs.</summary>
    public long CallCount => _callCount;

    internal LayerPlan Plan { get; }

    internal BaseLayer BaseLayer => Plan.Base;

    internal LoKrConfig Config => Plan.Config;

    /// <summary>The scaling as trained, without <see cref="Scale"/>.</summary>
    internal double DefaultScaling { get; }

    /// <summary>
    /// The dense scaling·(w1 ⊗ w2), in the shape of the base weight and the type of the factors; for inspection. DoRA's magnitudes take no part.
    /// </summary>
    public Tensor GetDeltaWeight()
    {
        using DisposeScope scope = NewDisposeScope();
        return BaseLayer.AsMatrix(Factors.ToDense(Config.WeightDecompose ? DefaultScaling : Scaling)).MoveToOuterDisposeScope();
    }

    /// <summary>Replaces the factors by others of the same shapes, on another device or in another type.</summary>
    internal void ReplaceFactors(KroneckerFactors factors) => Factors = factors;

    /// <summary>Adds the delta to a weight, in place, without dropout.</summary>
    /// <param name="weight">The weight as the layer stores it, other adapters included.</param>
    /// <param name="baseWeight">The base weight without any adapter.</param>
    internal void MergeInto(Tensor weight, Tensor baseWeight)
    {
        using DisposeScope scope = NewDisposeScope();
        if (Config.WeightDecompose)
        {
            WeightDecomposition.MergeInto(this, weight, baseWeight);
        }
        else
        {
            FactorMerge.AddTo(BaseLayer.AsMatrix(weight), Factors, Scaling);
        }
    }

    /// <summary>Adds the contribution to an output; the result is in the wider type of both, and the output itself when there is nothing to add.</summary>
    /// <param name="y">The output.</param>
    /// <param name="x">Input of the layer.</param>
    /// <param name="baseOutput">Output of the base layer alone.</param>
    internal Tensor AddTo(Tensor y, Tensor x, Tensor baseOutput)
    {
        _callCount++;
        if (_hasDropout && BaseLayer.Module.training)
        {
            if (Config.ModuleDropout > 0 && DrawsModuleDropout())
            {
                return y;
            }

            if (Config.RankDropout > 0 && !Config.WeightDecompose)
            {
                using DisposeScope scope = NewDisposeScope();
                Tensor masked = BaseLayer.CastInput(x, Factors.DType);
                return (y + BaseLayer.ScaleRows(BaseLayer.Apply(masked, Factors, Scaling), masked, RowMask(x.device))).MoveToOuterDisposeScope();
            }
        }

        if (Config.WeightDecompose)
        {
            using DisposeScope scope = NewDisposeScope();
            return (y + WeightDecomposition.Contribution(this, BaseLayer.CastInput(x, Factors.DType), baseOutput)).MoveToOuterDisposeScope();
        }

        return BaseLayer.AddTo(y.dtype == Factors.DType ? y : y.to(Factors.DType), BaseLayer.CastInput(x, Factors.DType), Factors, Scaling);
    }

    /// <summary>Whether the contribution is exactly x·(w1 ⊗ w2)ᵀ, without dropout or DoRA.</summary>
    internal bool IsPlain => !_hasDropout && !Config.WeightDecompose;

    /// <summary>The contributions of several adapters in one pass, of layers that are <see cref="IsPlain">plain</see>.</summary>
    internal static Tensor AddAllTo(Tensor y, Tensor x, LoKrLayer[] layers)
    {
        KroneckerFactors[] factors = [.. layers.Select(static layer => layer.Factors)];
        foreach (LoKrLayer layer in layers)
        {
            layer._callCount++;
        }

        ScalarType type = factors[0].DType;
        return StackedContraction.AddTo(
            y.dtype == type ? y : y.to(type), layers[0].BaseLayer.CastInput(x, type), factors, [.. layers.Select(static layer => layer.Scaling)]);
    }

    private bool DrawsModuleDropout()
    {
        using Tensor drawn = rand(1);
        return drawn.ToDouble() < Config.ModuleDropout;
    }

    /// <summary>PEFT's rank dropout: despite its name a mask over output features, drawn for each call.</summary>
    private Tensor RowMask(Device device)
    {
        Tensor mask = rand(BaseLayer.OutFeatures).gt(Config.RankDropout).to(Factors.DType);
        if (Config.RankDropoutScale)
        {
            // No row left: the mean is zero and so is the whole mask; dividing would make it NaN.
            double mean = mask.mean().ToDouble();
            mask = mean > 0 ? mask / mean : mask;
        }

        return mask.to(device);
    }
}
