using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Vae;

/// <summary>Pictures to the moments of their latents.</summary>
internal sealed class VaeEncoder : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "conv_in")]
    private readonly Conv2d _in;

    [ComponentName(Name = "down_blocks")]
    private readonly ModuleList<DownEncoderBlock2D> _blocks;

    [ComponentName(Name = "mid_block")]
    private readonly VaeMidBlock _mid;

    [ComponentName(Name = "conv_norm_out")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "conv_out")]
    private readonly Conv2d _out;

    private readonly Func<Tensor, Tensor> _activate;

    public VaeEncoder(VaeSettings settings)
        : base("Encoder")
    {
        _activate = settings.Activate;
        _in = settings.Convolution(settings.InChannels, settings.Channels[0], 3);
        _blocks = new ModuleList<DownEncoderBlock2D>([.. Enumerable.Range(0, settings.Channels.Count).Select(index => new DownEncoderBlock2D(settings, index))]);
        _mid = new VaeMidBlock(settings);
        _norm = settings.Norm(settings.Channels[^1]);
        _out = settings.Convolution(settings.Channels[^1], settings.LatentChannels * 2, 3);
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → [batch, 2·latent channels, height/factor, width/factor].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _in.call(input);
        foreach (DownEncoderBlock2D block in _blocks)
        {
            x = x.Then(block.call);
        }

        return x.Then(_mid.call).Then(_norm.call).Then(_activate).Then(_out.call).MoveToOuterDisposeScope();
    }
}
