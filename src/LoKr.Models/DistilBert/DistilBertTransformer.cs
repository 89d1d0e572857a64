using LoKr.Core.Modeling;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>The stack of layers.</summary>
internal sealed class DistilBertTransformer : nn.Module<Tensor, Tensor?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "layer")]
    private readonly ModuleList<DistilBertLayer> _layers;

    public DistilBertTransformer(DistilBertSettings settings)
        : base(nameof(DistilBertTransformer))
    {
        _layers = new ModuleList<DistilBertLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new DistilBertLayer(settings))]);
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
        foreach (DistilBertLayer layer in _layers)
        {
            x = Checkpoints is null ? layer.call(x, mask) : Checkpoints.Run(layer, x, given => layer.call(given, kept));
        }

        return x.MoveToOuterDisposeScope();
    }
}
