using LoKr.Core.Modeling;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>The layers.</summary>
internal sealed class ClipTextEncoder : nn.Module<Tensor, Tensor?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "layers")]
    private readonly ModuleList<ClipTextLayer> _layers;

    public ClipTextEncoder(ClipTextSettings settings)
        : base(nameof(ClipTextEncoder))
    {
        _layers = new ModuleList<ClipTextLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new ClipTextLayer(settings))]);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask, or null for plain causal attention → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return Run(_layers[^1], Penultimate(input, mask), mask).MoveToOuterDisposeScope();
    }

    /// <summary>The last layer's output and its input.</summary>
    public (Tensor Last, Tensor Penultimate) WithPenultimate(Tensor input, Tensor? mask)
    {
        Tensor before = Penultimate(input, mask);
        return (Run(_layers[^1], before, mask), before);
    }

    private Tensor Penultimate(Tensor input, Tensor? mask)
    {
        Tensor x = input.alias();
        for (int i = 0; i < _layers.Count - 1; i++)
        {
            Tensor next = Run(_layers[i], x, mask);
            x.Dispose();
            x = next;
        }

        return x;
    }

    private Tensor Run(ClipTextLayer layer, Tensor x, Tensor? mask)
    {
        if (Checkpoints is null)
        {
            return layer.call(x, mask);
        }

        Tensor? kept = Checkpoints.Keep(mask);
        return Checkpoints.Run(layer, x, given => layer.call(given, kept));
    }
}
