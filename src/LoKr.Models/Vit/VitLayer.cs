using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Vit;

/// <summary>Attention and feed-forward block, each on the normalised input and added to it.</summary>
internal sealed class VitLayer : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "attention")]
    private readonly VitAttention _attention;

    [ComponentName(Name = "mlp")]
    private readonly VitMlp _mlp;

    [ComponentName(Name = "layernorm_before")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "layernorm_after")]
    private readonly LayerNorm _mlpNorm;

    public VitLayer(VitSettings settings)
        : base(nameof(VitLayer))
    {
        _attention = new VitAttention(settings);
        _mlp = new VitMlp(settings);
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _mlpNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_attentionNorm.call(input));
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}
