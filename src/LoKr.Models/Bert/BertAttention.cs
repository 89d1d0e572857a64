using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>Self-attention with its output projection, residual and normalisation.</summary>
internal sealed class BertAttention : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "self")]
    private readonly BertSelfAttention _self;

    [ComponentName(Name = "output")]
    private readonly BertOutput _output;

    public BertAttention(BertSettings settings)
        : base(nameof(BertAttention))
    {
        _self = new BertSelfAttention(settings);
        _output = new BertOutput(settings, settings.HiddenSize);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return _output.call(_self.call(input, mask), input).MoveToOuterDisposeScope();
    }
}
