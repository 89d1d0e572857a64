using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>A layer from one tensor to one tensor, whose output a forward hook intercepts.</summary>
internal abstract class HookedBaseLayer(string name, nn.Module<Tensor, Tensor> module) : BaseLayer(name, module)
{
    private nn.HookableModule<Func<nn.Module<Tensor, Tensor>, Tensor, Tensor>, Func<nn.Module<Tensor, Tensor>, Tensor, Tensor, Tensor>>.HookRemover? _hook;

    /// <inheritdoc/>
    public override void Attach(Func<Tensor, Tensor, Tensor?> onForward) =>
        _hook = module.register_forward_hook((_, input, output) => onForward(input, output)!);

    /// <inheritdoc/>
    public override void Detach()
    {
        _hook?.remove();
        _hook = null;
    }
}
