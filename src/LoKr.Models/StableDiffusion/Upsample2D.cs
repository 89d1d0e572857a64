using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>Doubles height and width by repeating each value, and smooths with a convolution.</summary>
internal sealed class Upsample2D : nn.Module<Tensor, (long Height, long Width), Tensor>
{
    [ComponentName(Name = "conv")]
    private readonly Conv2d _convolution;

    public Upsample2D(int channels, Device device, ScalarType dtype)
        : base(nameof(Upsample2D))
    {
        _convolution = nn.Conv2d(channels, channels, 3, padding: 1, device: device, dtype: dtype);
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → [batch, channels, height and width wanted]: twice those of the input, or one less where an odd size was halved.</summary>
    public override Tensor forward(Tensor input, (long Height, long Width) size)
    {
        using DisposeScope scope = NewDisposeScope();
        return nn.functional.interpolate(input, size: [size.Height, size.Width], mode: InterpolationMode.Nearest).Then(_convolution.call).MoveToOuterDisposeScope();
    }
}
