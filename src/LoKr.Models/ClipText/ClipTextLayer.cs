using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>Attention and feed-forward block, each on the normalised input and added to it.</summary>
internal sealed class ClipTextLayer : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "self_attn")]
    private readonly ClipTextAttention _attention;

    [ComponentName(Name = "layer_norm1")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "mlp")]
    private readonly ClipTextMlp _mlp;

    [ComponentName(Name = "layer_norm2")]
    private readonly LayerNorm _mlpNorm;

    public ClipTextLayer(ClipTextSettings settings)
        : base(nameof(ClipTextLayer))
    {
        _attention = new ClipTextAttention(settings);
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _mlp = new ClipTextMlp(settings);
        _mlpNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask, or null for plain causal attention → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_attentionNorm.call(input), mask);
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}
