using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>Attention among the pixels, attention to the text and a feed-forward block, each on the normalised input and added to it.</summary>
internal sealed class BasicTransformerBlock : nn.Module<Tensor, Tensor, Tensor>
{
    private const double Epsilon = 1e-5;

    [ComponentName(Name = "norm1")]
    private readonly LayerNorm _selfNorm;

    [ComponentName(Name = "attn1")]
    private readonly UNetAttention _self;

    [ComponentName(Name = "norm2")]
    private readonly LayerNorm _crossNorm;

    [ComponentName(Name = "attn2")]
    private readonly UNetAttention _cross;

    [ComponentName(Name = "norm3")]
    private readonly LayerNorm _feedNorm;

    [ComponentName(Name = "ff")]
    private readonly FeedForward _feed;

    private readonly bool _onlyCrossAttention;

    public BasicTransformerBlock(TransformerSettings settings)
        : base(nameof(BasicTransformerBlock))
    {
        _onlyCrossAttention = settings.OnlyCrossAttention;
        _selfNorm = Norm();
        _self = new UNetAttention(settings, _onlyCrossAttention ? settings.ContextWidth : settings.Channels);
        _crossNorm = Norm();
        _cross = new UNetAttention(settings, settings.ContextWidth);
        _feedNorm = Norm();
        _feed = new FeedForward(settings);
        RegisterComponents();

        LayerNorm Norm() => nn.LayerNorm([settings.Channels], Epsilon, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>Pixels [batch, pixels, channels] and the text's hidden states [batch, length, width] → [batch, pixels, channels].</summary>
    public override Tensor forward(Tensor input, Tensor context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor normed = _selfNorm.call(input);
        Tensor x = _self.call(normed, _onlyCrossAttention ? context : normed) + input;
        x = _cross.call(_crossNorm.call(x), context) + x;
        return (_feed.call(_feedNorm.call(x)) + x).MoveToOuterDisposeScope();
    }
}
