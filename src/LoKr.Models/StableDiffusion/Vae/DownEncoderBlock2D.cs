using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Vae;

/// <summary>One resolution of the encoder.</summary>
internal sealed class DownEncoderBlock2D : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "downsamplers")]
    private readonly ModuleList<Downsample2D>? _downsamplers;

    public DownEncoderBlock2D(VaeSettings settings, int index)
        : base(nameof(DownEncoderBlock2D))
    {
        int channels = settings.Channels[index];
        int before = settings.Channels[Math.Max(index - 1, 0)];
        _resnets = new ModuleList<ResnetBlock2D>([.. Enumerable.Range(0, settings.LayerCount).Select(layer => settings.Resnet(layer == 0 ? before : channels, channels))]);
        _downsamplers = index < settings.Channels.Count - 1
            ? new ModuleList<Downsample2D>(new Downsample2D(channels, padding: 0, settings.Device, settings.DType))
            : null;
        RegisterComponents();
    }

    /// <summary>[batch, channels before, height, width] → [batch, channels, height/2, width/2], the same size in the last block.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input.alias();
        foreach (ResnetBlock2D block in _resnets)
        {
            x = x.Then(y => block.call(y, null));
        }

        return (_downsamplers is null ? x : x.Then(_downsamplers[0].call)).MoveToOuterDisposeScope();
    }
}
