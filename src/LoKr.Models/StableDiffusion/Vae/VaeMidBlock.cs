using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Vae;

/// <summary>The lowest resolution: attention, where there is any, between two residual blocks.</summary>
internal sealed class VaeMidBlock : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<VaeAttention>? _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    public VaeMidBlock(VaeSettings settings)
        : base("UNetMidBlock2D")
    {
        int channels = settings.Channels[^1];
        _attentions = settings.HasMidAttention ? new ModuleList<VaeAttention>(new VaeAttention(settings)) : null;
        _resnets = new ModuleList<ResnetBlock2D>(settings.Resnet(channels, channels), settings.Resnet(channels, channels));
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → the same shape.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _resnets[0].call(input, null);
        x = _attentions is null ? x : x.Then(_attentions[0].call);
        return x.Then(y => _resnets[1].call(y, null)).MoveToOuterDisposeScope();
    }
}
