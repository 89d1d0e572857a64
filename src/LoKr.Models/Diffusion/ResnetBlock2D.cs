using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>Two normalized convolutions with the time between them, added to the input.</summary>
internal sealed class ResnetBlock2D : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "norm1")]
    private readonly GroupNorm _norm1;

    [ComponentName(Name = "conv1")]
    private readonly Conv2d _conv1;

    [ComponentName(Name = "time_emb_proj")]
    private readonly Linear? _time;

    [ComponentName(Name = "norm2")]
    private readonly GroupNorm _norm2;

    [ComponentName(Name = "conv2")]
    private readonly Conv2d _conv2;

    [ComponentName(Name = "conv_shortcut")]
    private readonly Conv2d? _shortcut;

    private readonly ResnetSettings _settings;

    public ResnetBlock2D(ResnetSettings settings)
        : base(nameof(ResnetBlock2D))
    {
        _settings = settings;
        int channels = settings.OutChannels;
        _norm1 = Norm(settings.InChannels);
        _conv1 = Convolve(settings.InChannels, 3);
        _time = settings.TimeWidth is int width
            ? nn.Linear(width, settings.TimeScaleShift ? channels * 2 : channels, device: settings.Device, dtype: settings.DType)
            : null;
        _norm2 = Norm(channels);
        _conv2 = Convolve(channels, 3);
        _shortcut = settings.InChannels == channels ? null : Convolve(settings.InChannels, 1);
        RegisterComponents();

        GroupNorm Norm(int count) => nn.GroupNorm(settings.GroupCount, count, settings.NormEpsilon, device: settings.Device, dtype: settings.DType);

        Conv2d Convolve(int count, int kernel) => nn.Conv2d(count, channels, kernel, padding: kernel / 2, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>Features [batch, channels in, height, width] and the embedded time [batch, time width], if any → [batch, channels out, height, width].</summary>
    public override Tensor forward(Tensor input, Tensor? time)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _norm1.call(input).Then(_settings.Activate).Then(_conv1.call);
        using Tensor? shift = _time is null ? null : _settings.Activate(time!).Then(_time.call).Then(static row => row.unsqueeze(-1).unsqueeze(-1));
        if (shift is not null && _settings.TimeScaleShift)
        {
            Tensor[] parts = shift.chunk(2, 1);
            x = x.Then(_norm2.call).Then(y => (y * (1 + parts[0])) + parts[1]);
        }
        else
        {
            x = (shift is null ? x : x.Then(y => y + shift)).Then(_norm2.call);
        }

        x = x.Then(_settings.Activate);
        x = training && _settings.Dropout > 0 ? x.Then(y => nn.functional.dropout(y, _settings.Dropout)) : x;
        x = x.Then(_conv2.call);
        x = _shortcut is null ? x.Then(y => input + y) : _shortcut.call(input).Then(y => x.Then(z => y + z));
        return (_settings.Scale == 1 ? x : x / _settings.Scale).MoveToOuterDisposeScope();
    }
}

/// <summary>The parts of a residual block.</summary>
internal sealed record ResnetSettings
{
    public required int InChannels { get; init; }

    public required int OutChannels { get; init; }

    /// <summary>Width of the time embedding; null in an autoencoder, which has no time.</summary>
    public int? TimeWidth { get; init; }

    public required int GroupCount { get; init; }

    public required double NormEpsilon { get; init; }

    public required Func<Tensor, Tensor> Activate { get; init; }

    public double Dropout { get; init; }

    /// <summary>Divisor of the sum of both branches.</summary>
    public double Scale { get; init; } = 1;

    /// <summary>Whether the time scales and shifts the normalized features; otherwise it is added to them.</summary>
    public bool TimeScaleShift { get; init; }

    public required Device Device { get; init; }

    public required ScalarType DType { get; init; }
}

/// <summary>Halves height and width by a convolution with stride 2.</summary>
internal sealed class Downsample2D : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "conv")]
    private readonly Conv2d _convolution;

    private readonly bool _padsAfter;

    /// <summary>Creates the layer.</summary>
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

/// <summary>Chains of operations on large feature maps that release each map as soon as the next exists, unless autograd needs it.</summary>
internal static class Chaining
{
    /// <summary>Applies the next operation and disposes its input.</summary>
    /// <param name="input">A tensor that is not needed otherwise.</param>
    /// <param name="next">An operation that returns a new tensor.</param>
    public static Tensor Then(this Tensor input, Func<Tensor, Tensor> next)
    {
        using (input)
        {
            return next(input);
        }
    }
}
