using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>The layers.</summary>
internal sealed class ClipTextEncoder : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "layers")]
    private readonly ModuleList<ClipTextLayer> _layers;

    public ClipTextEncoder(ClipTextSettings settings)
        : base(nameof(ClipTextEncoder))
    {
        _layers = new ModuleList<ClipTextLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new ClipTextLayer(settings))]);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask, or null for plain causal attention → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input.alias();
        foreach (ClipTextLayer layer in _layers)
        {
            Tensor next = layer.call(x, mask);
            x.Dispose();
            x = next;
        }

        return x.MoveToOuterDisposeScope();
    }
}
