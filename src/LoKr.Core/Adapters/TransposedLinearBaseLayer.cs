using LoKr.Core.Modeling;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>GPT-2's <c>Conv1D</c>: a linear layer whose weight is stored in×out. The delta is meant out×in, as for every layer, and is merged transposed.</summary>
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
