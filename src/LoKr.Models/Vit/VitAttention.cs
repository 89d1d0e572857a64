using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Vit;

/// <summary>Multi-head self-attention over all patches.</summary>
internal sealed class VitAttention : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "q_proj")]
    private readonly Linear _query;

    [ComponentName(Name = "k_proj")]
    private readonly Linear _key;

    [ComponentName(Name = "v_proj")]
    private readonly Linear _value;

    [ComponentName(Name = "o_proj")]
    private readonly Linear _output;

    private readonly int _heads;
    private readonly double _attentionDropout;
    private readonly double _hiddenDropout;

    public VitAttention(VitSettings settings)
        : base(nameof(VitAttention))
    {
        (_heads, _attentionDropout, _hiddenDropout) = (settings.HeadCount, settings.AttentionDropout, settings.HiddenDropout);
        _query = Project(settings.HasInputBias);
        _key = Project(settings.HasInputBias);
        _value = Project(settings.HasInputBias);
        _output = Project(true);
        RegisterComponents();

        Linear Project(bool bias) => nn.Linear(settings.HiddenSize, settings.HiddenSize, bias, settings.Device, settings.DType);
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor context = Attention.ScaledDotProduct(
            Attention.SplitHeads(_query.call(input), _heads),
            Attention.SplitHeads(_key.call(input), _heads),
            Attention.SplitHeads(_value.call(input), _heads),
            dropout: training ? _attentionDropout : 0);
        Tensor output = _output.call(Attention.MergeHeads(context));
        return nn.functional.dropout(output, _hiddenDropout, training).MoveToOuterDisposeScope();
    }
}
