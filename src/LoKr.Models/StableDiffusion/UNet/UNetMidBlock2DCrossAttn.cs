using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>The lowest resolution: a transformer between two residual blocks.</summary>
internal sealed class UNetMidBlock2DCrossAttn : nn.Module<Tensor, Tensor, Tensor, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<Transformer2DModel> _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    public UNetMidBlock2DCrossAttn(UNetSettings settings)
        : base(nameof(UNetMidBlock2DCrossAttn))
    {
        int channels = settings.Channels[^1];
        _attentions = new ModuleList<Transformer2DModel>(new Transformer2DModel(settings.Transformer(settings.Channels.Count - 1, onlyCrossAttention: false)));
        _resnets = new ModuleList<ResnetBlock2D>(Block(), Block());
        RegisterComponents();

        ResnetBlock2D Block() => new(settings.Resnet(channels, channels, settings.MidScale));
    }

    /// <summary>Features [batch, channels, height, width], the time and the text → features of the same shape.</summary>
    public override Tensor forward(Tensor input, Tensor time, Tensor context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _attentions[0].call(_resnets[0].call(input, time), context);
        return _resnets[1].call(x, time).MoveToOuterDisposeScope();
    }
}
