using LoKr.Core.Modeling;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>The stack of layers.</summary>
internal sealed class BertEncoder : nn.Module<Tensor, Tensor?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "layer")]
    private readonly ModuleList<BertLayer> _layers;

    public BertEncoder(BertSettings settings)
        : base(nameof(BertEncoder))
    {
        _layers = new ModuleList<BertLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new BertLayer(settings))]);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input;
        Tensor? kept = Checkpoints?.Keep(mask);
        foreach (BertLayer layer in _layers)
        {
            x = Checkpoints is null ? layer.call(x, mask) : Checkpoints.Run(layer, x, given => layer.call(given, kept));
        }

        return x.MoveToOuterDisposeScope();
    }
}
