using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

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
        DefaultScaling = plan.Settings.Scaling;
    }

    /// <summary>Full name of the base layer.</summary>
    public string ModuleName => BaseLayer.Name;

    /// <inheritdoc/>
    public override string ToString() => ModuleName;

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

    /// <summary>Meaning of <see cref="Scale"/> if the layer has DoRA.</summary>
    public DoraStrength DoraStrength { get; set; }

    /// <summary>How often the layer has run since it was attached; zero after a training step means that the hook of the base layer never runs.</summary>
    public long CallCount => _callCount;

    internal LayerPlan Plan { get; }

    internal BaseLayer BaseLayer => Plan.Base;

    internal LoKrConfig Config => Plan.Config;

    internal AdapterStrength Strength => new(Scale, DoraStrength);

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
