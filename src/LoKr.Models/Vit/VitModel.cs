using LoKr.Core.Modeling;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Vit;

/// <summary>Embeddings, layers and the final norm.</summary>
internal sealed class VitModel : nn.Module<Tensor, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "embeddings")]
    private readonly VitEmbeddings _embeddings;

    [ComponentName(Name = "layers")]
    private readonly ModuleList<VitLayer> _layers;

    [ComponentName(Name = "layernorm")]
    private readonly LayerNorm _norm;

    public VitModel(VitSettings settings)
        : base(nameof(VitModel))
    {
        _embeddings = new VitEmbeddings(settings);
        _layers = new ModuleList<VitLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new VitLayer(settings))]);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Images [batch, channels, height, width] → hidden states [batch, patches + 1, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _embeddings.call(input);
        foreach (VitLayer layer in _layers)
        {
            Tensor next = Checkpoints is null ? layer.call(x) : Checkpoints.Run(layer, x, layer.call);
            x.Dispose();
            x = next;
        }

        return _norm.call(x).MoveToOuterDisposeScope();
    }
}
