using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Vae;

/// <summary>Latents to pictures.</summary>
internal sealed class VaeDecoder : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "conv_in")]
    private readonly Conv2d _in;

    [ComponentName(Name = "up_blocks")]
    private readonly ModuleList<UpDecoderBlock2D> _blocks;

    [ComponentName(Name = "mid_block")]
    private readonly VaeMidBlock _mid;

    [ComponentName(Name = "conv_norm_out")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "conv_out")]
    private readonly Conv2d _out;

    private readonly Func<Tensor, Tensor> _activate;

    public VaeDecoder(VaeSettings settings)
        : base("Decoder")
    {
        _activate = settings.Activate;
        _in = settings.Convolution(settings.LatentChannels, settings.Channels[^1], 3);
        _blocks = new ModuleList<UpDecoderBlock2D>([.. Enumerable.Range(0, settings.Channels.Count).Select(index => new UpDecoderBlock2D(settings, index))]);
        _mid = new VaeMidBlock(settings);
        _norm = settings.Norm(settings.Channels[0]);
        _out = settings.Convolution(settings.Channels[0], settings.OutChannels, 3);
        RegisterComponents();
    }

    /// <summary>[batch, latent channels, height, width] → [batch, channels, factor·height, factor·width].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _in.call(input).Then(_mid.call);
        foreach (UpDecoderBlock2D block in _blocks)
        {
            x = x.Then(block.call);
        }

        return x.Then(_norm.call).Then(_activate).Then(_out.call).MoveToOuterDisposeScope();
    }
}
