using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Vit;

/// <summary>The feed-forward block.</summary>
internal sealed class VitMlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "fc1")]
    private readonly Linear _inner;

    [ComponentName(Name = "fc2")]
    private readonly Linear _outer;

    private readonly Func<Tensor, Tensor> _activation;
    private readonly double _dropout;

    public VitMlp(VitSettings settings)
        : base(nameof(VitMlp))
    {
        _inner = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _outer = nn.Linear(settings.IntermediateSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        (_activation, _dropout) = (settings.Activation, settings.HiddenDropout);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return nn.functional.dropout(_outer.call(_activation(_inner.call(input))), _dropout, training).MoveToOuterDisposeScope();
    }
}
