using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>Halves height and width by a convolution with stride 2.</summary>
internal sealed class Downsample2D : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "conv")]
    private readonly Conv2d _convolution;

    private readonly bool _padsAfter;

    /// <summary>Makes the layer.</summary>
    /// <param name="channels">Channels in and out.</param>
    /// <param name="padding">Rows and columns of zeros on every side; with 0 one row below and one column on the right, as autoencoders have it.</param>
    /// <param name="device">Device.</param>
    /// <param name="dtype">Type.</param>
    public Downsample2D(int channels, int padding, Device device, ScalarType dtype)
        : base(nameof(Downsample2D))
    {
        _padsAfter = padding == 0;
        _convolution = nn.Conv2d(channels, channels, 3, stride: 2, padding: padding, device: device, dtype: dtype);
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → [batch, channels, height/2, width/2].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _convolution.call(_padsAfter ? nn.functional.pad(input, [0, 1, 0, 1]) : input).MoveToOuterDisposeScope();
    }
}
