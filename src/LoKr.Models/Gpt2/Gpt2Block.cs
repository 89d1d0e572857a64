using LoKr.Models.Generation;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Gpt2;

/// <summary>Attention and feed-forward block, each on the normalised input and added to it.</summary>
internal sealed class Gpt2Block : nn.Module<Tensor, Tensor?, KeyValueCache?, Tensor>
{
    [ComponentName(Name = "ln_1")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "attn")]
    private readonly Gpt2Attention _attention;

    [ComponentName(Name = "ln_2")]
    private readonly LayerNorm _mlpNorm;

    [ComponentName(Name = "mlp")]
    private readonly Gpt2Mlp _mlp;

    public Gpt2Block(Gpt2Settings settings, int layer)
        : base(nameof(Gpt2Block))
    {
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _attention = new Gpt2Attention(settings, layer);
        _mlpNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _mlp = new Gpt2Mlp(settings);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden]; mask and cache as in <see cref="Gpt2Attention"/>.</summary>
    public override Tensor forward(Tensor input, Tensor? mask, KeyValueCache? cache)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_attentionNorm.call(input), mask, cache);
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}
