using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>Multi-head attention of pixels over pixels, or over the text.</summary>
internal sealed class UNetAttention : nn.Module<Tensor, Tensor, Tensor>
{
    [ComponentName(Name = "to_q")]
    private readonly Linear _query;

    [ComponentName(Name = "to_k")]
    private readonly Linear _key;

    [ComponentName(Name = "to_v")]
    private readonly Linear _value;

    [ComponentName(Name = "to_out")]
    private readonly ModuleList<Linear> _output;

    private readonly int _heads;
    private readonly bool _upcasts;

    /// <summary>Makes the layer.</summary>
    /// <param name="settings">Of the transformer.</param>
    /// <param name="contextWidth">Width of what is looked at.</param>
    public UNetAttention(TransformerSettings settings, int contextWidth)
        : base("Attention")
    {
        (_heads, _upcasts) = (settings.HeadCount, settings.Upcasts);
        _query = Project(settings.Channels, bias: false);
        _key = Project(contextWidth, bias: false);
        _value = Project(contextWidth, bias: false);
        _output = new ModuleList<Linear>(Project(settings.Channels, bias: true));
        RegisterComponents();

        Linear Project(int width, bool bias) => nn.Linear(width, settings.Channels, bias, settings.Device, settings.DType);
    }

    /// <summary>Pixels [batch, pixels, channels] and what they look at [batch, length, width] → [batch, pixels, channels].</summary>
    public override Tensor forward(Tensor input, Tensor context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor mixed = Attention.ScaledDotProduct(Heads(_query.call(input)), Heads(_key.call(context)), Heads(_value.call(context)));
        return _output[0].call(Attention.MergeHeads(mixed).to(input.dtype)).MoveToOuterDisposeScope();
    }

    private Tensor Heads(Tensor x)
    {
        Tensor heads = Attention.SplitHeads(x, _heads);
        return _upcasts ? heads.to(ScalarType.Float32) : heads;
    }
}
