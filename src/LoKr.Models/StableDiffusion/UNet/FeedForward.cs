using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>The feed-forward block of a transformer layer, four times as wide inside.</summary>
internal sealed class FeedForward : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "net")]
    private readonly ModuleList<nn.Module<Tensor, Tensor>> _net;

    public FeedForward(TransformerSettings settings)
        : base(nameof(FeedForward))
    {
        // The middle one keeps the place of diffusers' dropout, which no configuration switches on.
        int width = settings.Channels * 4;
        _net = new ModuleList<nn.Module<Tensor, Tensor>>(
            new GeGlu(settings, width), nn.Identity(), nn.Linear(width, settings.Channels, device: settings.Device, dtype: settings.DType));
        RegisterComponents();
    }

    /// <summary>[batch, pixels, channels] → [batch, pixels, channels].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _net[2].call(_net[0].call(input)).MoveToOuterDisposeScope();
    }
}
