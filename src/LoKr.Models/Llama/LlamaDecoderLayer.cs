using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>Attention and feed-forward layers, each on the normalised input and added to it.</summary>
internal sealed class LlamaDecoderLayer : nn.Module<Tensor, DecoderPass, Tensor>
{
    [ComponentName(Name = "self_attn")]
    private readonly LlamaAttention _attention;

    [ComponentName(Name = "mlp")]
    private readonly LlamaMlp _mlp;

    [ComponentName(Name = "input_layernorm")]
    private readonly RmsNorm _inputNorm;

    [ComponentName(Name = "post_attention_layernorm")]
    private readonly RmsNorm _mlpNorm;

    public LlamaDecoderLayer(LlamaSettings settings, int layer)
        : base(nameof(LlamaDecoderLayer))
    {
        _attention = new LlamaAttention(settings, layer);
        _mlp = new LlamaMlp(settings);
        _inputNorm = new RmsNorm(settings.HiddenSize, settings.NormEpsilon, settings.Device, settings.DType);
        _mlpNorm = new RmsNorm(settings.HiddenSize, settings.NormEpsilon, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, DecoderPass pass)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_inputNorm.call(input), pass);
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}
