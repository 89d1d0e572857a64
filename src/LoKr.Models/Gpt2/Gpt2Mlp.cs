using LoKr.Core.Modeling;
using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Gpt2;

/// <summary>The feed-forward block.</summary>
internal sealed class Gpt2Mlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "c_fc")]
    private readonly Conv1D _inner;

    [ComponentName(Name = "c_proj")]
    private readonly Conv1D _outer;

    private readonly Func<Tensor, Tensor> _activation;
    private readonly double _dropout;

    public Gpt2Mlp(Gpt2Settings settings)
        : base(nameof(Gpt2Mlp))
    {
        _inner = new Conv1D(settings.HiddenSize, settings.IntermediateSize, settings.Device, settings.DType);
        _outer = new Conv1D(settings.IntermediateSize, settings.HiddenSize, settings.Device, settings.DType);
        (_activation, _dropout) = (settings.Activation, settings.ResidualDropout);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return nn.functional.dropout(_outer.call(_activation(_inner.call(input))), _dropout, training).MoveToOuterDisposeScope();
    }
}
