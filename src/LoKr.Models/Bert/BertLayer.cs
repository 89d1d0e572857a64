using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>One encoder layer: attention block, feed-forward block.</summary>
internal sealed class BertLayer : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "attention")]
    private readonly BertAttention _attention;

    [ComponentName(Name = "intermediate")]
    private readonly BertIntermediate _intermediate;

    [ComponentName(Name = "output")]
    private readonly BertOutput _output;

    public BertLayer(BertSettings settings)
        : base(nameof(BertLayer))
    {
        _attention = new BertAttention(settings);
        _intermediate = new BertIntermediate(settings);
        _output = new BertOutput(settings, settings.IntermediateSize);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor attended = _attention.call(input, mask);
        return _output.call(_intermediate.call(attended), attended).MoveToOuterDisposeScope();
    }
}
