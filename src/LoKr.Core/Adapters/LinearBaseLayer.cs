using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>A linear layer that can be adapted.</summary>
internal sealed class LinearBaseLayer(string name, TorchSharp.Modules.Linear linear) : LinearKindBaseLayer(name, linear)
{
    /// <inheritdoc/>
    public override TorchSharp.Modules.Parameter Weight => linear.weight;

    /// <inheritdoc/>
    protected override Tensor? Bias => linear.bias;
}
