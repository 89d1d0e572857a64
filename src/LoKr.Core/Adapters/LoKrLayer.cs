using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>One adapter on one base layer: factors, scaling, dropouts. Adds its contribution to the base output without building w1 ⊗ w2.</summary>
public sealed class LoKrLayer
{
    private long _callCount;

    internal LoKrLayer(BaseLayer baseLayer, LoKrConfig config, int rank, double alpha)
    {
        BaseLayer = baseLayer;
        Config = config;
        R = rank;
        Alpha = alpha;
        Shapes = FactorShapes.Create(baseLayer.OutFeatures, baseLayer.InFeatures, baseLayer.Kernel, rank, config);
        DefaultScaling = LoKrScaling.Compute(config, rank, alpha, Shapes.BothFull);
    }

    /// <summary>Full name of the base layer.</summary>
    public string ModuleName => BaseLayer.Name;

    /// <summary>The factors.</summary>
    public KroneckerFactors Factors { get; internal set; } = null!;

    /// <summary>Their shapes.</summary>
    public FactorShapes Shapes { get; }

    /// <summary>Rank from the config or its pattern.</summary>
    public int R { get; }

    /// <summary>Alpha from the config or its pattern.</summary>
    public double Alpha { get; }

    /// <summary>What w1 ⊗ w2 is multiplied with: by the scaling convention, times <see cref="Scale"/>.</summary>
    public double Scaling => DefaultScaling * Scale;

    /// <summary>Strength of the adapter on this layer, 1 as trained (PEFT <c>set_scale</c>).</summary>
    public double Scale { get; set; } = 1;

    /// <summary>How often the layer has run since it was attached; zero after a training step means that the base layer never fires its hook.</summary>
    public long CallCount => _callCount;

    internal BaseLayer BaseLayer { get; }

    internal LoKrConfig Config { get; }

    private double DefaultScaling { get; }

    /// <summary>The dense delta weight with scaling, in the shape of the base weight and the type of the factors; for inspection.</summary>
    public Tensor GetDeltaWeight() => Factors.ToDense(Scaling);

    /// <summary>Adds the contribution to an output; the result is in the wider type of both.</summary>
    internal Tensor AddTo(Tensor y, Tensor x)
    {
        _callCount++;
        bool training = BaseLayer.Module.training;
        using DisposeScope scope = NewDisposeScope();
        if (training && Config.ModuleDropout > 0 && rand(1).ToDouble() < Config.ModuleDropout)
        {
            return y.alias().MoveToOuterDisposeScope();
        }

        Tensor input = x.to(Factors.DType);
        if (training && Config.RankDropout > 0)
        {
            Tensor mask = BaseLayer.ShapeRowMask(RowMask(x.device));
            return (y + (BaseLayer.Apply(input, Factors, Scaling) * mask)).MoveToOuterDisposeScope();
        }

        return BaseLayer.AddTo(y.to(Factors.DType), input, Factors, Scaling).MoveToOuterDisposeScope();
    }

    /// <summary>PEFT's rank dropout: despite its name a mask over output features, drawn anew for each call.</summary>
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
