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
        return _layers[^1].call(Penultimate(input, mask), mask).MoveToOuterDisposeScope();
    }

    /// <summary>The last layer's output and its input.</summary>
    public (Tensor Last, Tensor Penultimate) WithPenultimate(Tensor input, Tensor? mask)
    {
        Tensor before = Penultimate(input, mask);
        return (_layers[^1].call(before, mask), before);
    }

    private Tensor Penultimate(Tensor input, Tensor? mask)
    {
        Tensor x = input.alias();
        for (int i = 0; i < _layers.Count - 1; i++)
        {
            Tensor next = _layers[i].call(x, mask);
            x.Dispose();
            x = next;
        }

        return x;
    }
}
