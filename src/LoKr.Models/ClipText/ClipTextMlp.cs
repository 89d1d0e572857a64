using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>The feed-forward block.</summary>
internal sealed class ClipTextMlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "fc1")]
    private readonly Linear _inner;

    [ComponentName(Name = "fc2")]
    private readonly Linear _outer;

    private readonly Func<Tensor, Tensor> _activation;

    public ClipTextMlp(ClipTextSettings settings)
        : base(nameof(ClipTextMlp))
    {
        _inner = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _outer = nn.Linear(settings.IntermediateSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _outer.call(_activation(_inner.call(input))).MoveToOuterDisposeScope();
    }
}
