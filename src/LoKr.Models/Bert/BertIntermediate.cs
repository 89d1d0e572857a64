using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>First half of the feed-forward block: projection and activation.</summary>
internal sealed class BertIntermediate : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "dense")]
    private readonly Linear _dense;

    private readonly Func<Tensor, Tensor> _activation;

    public BertIntermediate(BertSettings settings)
        : base(nameof(BertIntermediate))
    {
        _dense = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, intermediate].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _activation(_dense.call(input)).MoveToOuterDisposeScope();
    }
}
