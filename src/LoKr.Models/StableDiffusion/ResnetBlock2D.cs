using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>Two normalised convolutions with the time between them, added to the input.</summary>
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
