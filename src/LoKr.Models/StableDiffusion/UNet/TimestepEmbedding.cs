using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.UNet;

/// <summary>Two layers on the features of a time, or of other numbers.</summary>
internal sealed class TimestepEmbedding : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "linear_1")]
    private readonly Linear _inner;

    [ComponentName(Name = "linear_2")]
    private readonly Linear _outer;

    private readonly Func<Tensor, Tensor> _activate;
    private readonly Func<Tensor, Tensor>? _postActivate;

    public TimestepEmbedding(UNetSettings settings, int inWidth, Func<Tensor, Tensor>? postActivate)
        : base(nameof(TimestepEmbedding))
    {
        _activate = settings.Activate;
        _postActivate = postActivate;
        _inner = nn.Linear(inWidth, settings.TimeWidth, device: settings.Device, dtype: settings.DType);
        _outer = nn.Linear(settings.TimeWidth, settings.TimeWidth, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Features [batch, features] → [batch, time width].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor y = _outer.call(_activate(_inner.call(input)));
        return (_postActivate is null ? y : _postActivate(y)).MoveToOuterDisposeScope();
    }
}
