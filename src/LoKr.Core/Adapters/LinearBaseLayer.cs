using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>A linear layer that can be adapted.</summary>
internal sealed class LinearBaseLayer(string name, TorchSharp.Modules.Linear linear) : BaseLayer(name, linear)
{
    private nn.HookableModule<Func<nn.Module<Tensor, Tensor>, Tensor, Tensor>, Func<nn.Module<Tensor, Tensor>, Tensor, Tensor, Tensor>>.HookRemover? _hook;

    /// <inheritdoc/>
    public override TorchSharp.Modules.Parameter Weight => linear.weight;

    /// <inheritdoc/>
    public override long OutFeatures => linear.weight.shape[0];

    /// <inheritdoc/>
    public override long InFeatures => linear.weight.shape[1];

    /// <inheritdoc/>
    public override void Attach(Func<Tensor, Tensor, Tensor?> onForward) =>
        _hook = linear.register_forward_hook((_, input, output) => onForward(input, output)!);

    /// <inheritdoc/>
    public override void Detach()
    {
        _hook?.remove();
        _hook = null;
    }

    /// <inheritdoc/>
    public override Tensor AddTo(Tensor y, Tensor x, KroneckerFactors factors, double scale) => factors.AddTo(y, x, scale);

    /// <inheritdoc/>
    public override Tensor Apply(Tensor x, KroneckerFactors factors, double scale) => factors.Apply(x, scale);

    /// <inheritdoc/>
    public override Tensor ShapeRowMask(Tensor mask) => mask.alias();
}
