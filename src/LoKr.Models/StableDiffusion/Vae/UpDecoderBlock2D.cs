using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Vae;

/// <summary>One resolution of the decoder.</summary>
internal sealed class UpDecoderBlock2D : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "upsamplers")]
    private readonly ModuleList<Upsample2D>? _upsamplers;

    /// <summary>Makes the block.</summary>
    /// <param name="settings">Of the autoencoder.</param>
    /// <param name="index">Index among the decoder's blocks.</param>
    public UpDecoderBlock2D(VaeSettings settings, int index)
        : base(nameof(UpDecoderBlock2D))
    {
        int last = settings.Channels.Count - 1;
        int channels = settings.Channels[last - index];
        int before = settings.Channels[Math.Min(last - index + 1, last)];
        _resnets = new ModuleList<ResnetBlock2D>([.. Enumerable.Range(0, settings.LayerCount + 1).Select(layer => settings.Resnet(layer == 0 ? before : channels, channels))]);
        _upsamplers = index < last ? new ModuleList<Upsample2D>(new Upsample2D(channels, settings.Device, settings.DType)) : null;
        RegisterComponents();
    }

    /// <summary>[batch, channels before, height, width] → [batch, channels, 2·height, 2·width], the same size in the last block.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input.alias();
        foreach (ResnetBlock2D block in _resnets)
        {
            x = x.Then(y => block.call(y, null));
        }

        return (_upsamplers is null ? x : x.Then(y => _upsamplers[0].call(y, (y.shape[2] * 2, y.shape[3] * 2)))).MoveToOuterDisposeScope();
    }
}
