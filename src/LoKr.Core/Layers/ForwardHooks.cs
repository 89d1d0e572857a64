using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Core.Layers;

/// <summary>The hooks of one model. Layers that live in one module, as the projections of an attention do, share a hook.</summary>
internal sealed class ForwardHooks
{
    private readonly Dictionary<MultiheadAttention, AttentionHook> _attentions = [];

    /// <summary>Changes the output of a layer from one tensor to one tensor.</summary>
    /// <param name="module">The layer.</param>
    /// <param name="adapt">Input and output to another output, or to null for the same.</param>
    public static IDisposable OnTensor(nn.Module<Tensor, Tensor> module, Func<Tensor, Tensor, Tensor?> adapt)
    {
        var hook = module.register_forward_hook((_, input, output) => adapt(input, output)!);
        return new Registration(hook.remove);
    }

    /// <summary>Changes the output of one of the projections of an attention.</summary>
    /// <param name="module">The attention.</param>
    /// <param name="isOutput">The projection of its result instead of the fused one of its inputs.</param>
    /// <param name="adapter">Changes the output.</param>
    public IDisposable OnAttention(MultiheadAttention module, bool isOutput, IOutputAdapter adapter)
    {
        if (!_attentions.TryGetValue(module, out AttentionHook? hook))
        {
            _attentions.Add(module, hook = new AttentionHook(module));
        }

        hook.Set(isOutput, adapter);
        return new Registration(() =>
        {
            hook.Set(isOutput, null);
            if (hook.IsIdle)
            {
                hook.Remove();
                _attentions.Remove(module);
            }
        });
    }

    private sealed class Registration(Action remove) : IDisposable
    {
        public void Dispose() => remove();
    }
}
