using LoKr.Core.Factors;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>Base of linear layers, however they store the weight.</summary>
internal abstract class LinearKindBaseLayer(string name, nn.Module module) : BaseLayer(name, module)
{
    /// <inheritdoc/>
    public override long OutFeatures => Weight.shape[0];

    /// <inheritdoc/>
    public override long InFeatures => Weight.shape[1];

    /// <summary>The bias, or null.</summary>
    protected abstract Tensor? Bias { get; }

    /// <inheritdoc/>
    public override Tensor AddTo(Tensor y, Tensor x, KroneckerFactors factors, double scale) => factors.Linear.AddTo(y, x, scale);

    /// <inheritdoc/>
    public override Tensor Apply(Tensor x, KroneckerFactors factors, double scale) => factors.Linear.Apply(x, scale);

    /// <inheritdoc/>
    public override Tensor ScaleRows(Tensor y, Tensor x, Tensor factors) => y * factors;

    /// <inheritdoc/>
    public override Tensor ApplyScaledColumns(Tensor x, Tensor y, KroneckerFactors factors, double scale, Tensor columns)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor scaled = x * columns;
        Tensor weight = AsMatrix(Weight).to(x.dtype);
        return factors.Linear.AddTo(scaled.matmul(weight.t()) - y, scaled, scale).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public override Tensor WithoutBias(Tensor y, ScalarType type) => Bias is Tensor bias ? y.to(type) - bias.to(type) : y.to(type);
}

/// <summary>A linear layer that can be adapted.</summary>
internal sealed class LinearBaseLayer(string name, TorchSharp.Modules.Linear linear) : LinearKindBaseLayer(name, linear)
{
    /// <inheritdoc/>
    public override TorchSharp.Modules.Parameter Weight => linear.weight;

    /// <inheritdoc/>
    protected override Tensor? Bias => linear.bias;
}

/// <summary>GPT-2's <c>Conv1D</c>: a linear layer whose weight is stored in×out. The delta is out×in, as for every layer, and is merged transposed.</summary>
internal sealed class TransposedLinearBaseLayer(string name, Conv1D layer) : LinearKindBaseLayer(name, layer)
{
    /// <inheritdoc/>
    public override TorchSharp.Modules.Parameter Weight => layer.Weight;

    /// <inheritdoc/>
    public override long OutFeatures => Weight.shape[1];

    /// <inheritdoc/>
    public override long InFeatures => Weight.shape[0];

    /// <inheritdoc/>
    protected override Tensor? Bias => layer.Bias;

    /// <inheritdoc/>
    public override Tensor AsMatrix(Tensor weight) => weight.t();
}
