using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>The feed-forward block.</summary>
internal sealed class DistilBertFeedForward : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "lin1")]
    private readonly Linear _in;

    [ComponentName(Name = "lin2")]
    private readonly Linear _out;

    private readonly Func<Tensor, Tensor> _activation;

    public DistilBertFeedForward(DistilBertSettings settings)
        : base(nameof(DistilBertFeedForward))
    {
        _dropout = nn.Dropout(settings.HiddenDropout);
        _in = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _out = nn.Linear(settings.IntermediateSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _dropout.call(_out.call(_activation(_in.call(input)))).MoveToOuterDisposeScope();
    }
}
