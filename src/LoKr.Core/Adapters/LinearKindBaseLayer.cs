using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>What linear layers have in common, however they store the weight.</summary>
internal abstract class LinearKindBaseLayer(string name, nn.Module module) : BaseLayer(name, module)
{
    /// <inheritdoc/>
    public override long OutFeatures => Weight.shape[0];

    /// <inheritdoc/>
    public override long InFeatures => Weight.shape[1];

    /// <summary>The bias, or null.</summary>
    protected abstract Tensor? Bias { get; }

    /// <inheritdoc/>
    public override Tensor AddTo(Tensor y, Tensor x, KroneckerFactors factors, double scale) => factors.AddTo(y, x, scale);

    /// <inheritdoc/>
    public override Tensor Apply(Tensor x, KroneckerFactors factors, double scale) => factors.Apply(x, scale);

    /// <inheritdoc/>
    public override Tensor ScaleRows(Tensor y, Tensor x, Tensor factors) => y * factors;

    /// <inheritdoc/>
    public override Tensor ApplyScaledColumns(Tensor x, Tensor y, KroneckerFactors factors, double scale, Tensor columns)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor scaled = x * columns;
        Tensor weight = AsMatrix(Weight).to(x.dtype);
        return factors.AddTo(scaled.matmul(weight.t()) - y, scaled, scale).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor WithoutBias(Tensor y, ScalarType type) => Bias is Tensor bias ? y.to(type) - bias.to(type) : y.to(type);
}
