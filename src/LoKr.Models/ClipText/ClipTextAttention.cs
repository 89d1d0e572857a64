using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

/// <summary>Causal multi-head self-attention.</summary>
internal sealed class ClipTextAttention : nn.Module<Tensor, Tensor?, Tensor>
{
    // The order is transformers', in which adapters list their layers.
    [ComponentName(Name = "k_proj")]
    private readonly Linear _key;

    [ComponentName(Name = "v_proj")]
    private readonly Linear _value;

    [ComponentName(Name = "q_proj")]
    private readonly Linear _query;

    [ComponentName(Name = "out_proj")]
    private readonly Linear _output;

    private readonly int _heads;
    private readonly double _dropout;

    public ClipTextAttention(ClipTextSettings settings)
        : base(nameof(ClipTextAttention))
    {
        (_heads, _dropout) = (settings.HeadCount, settings.AttentionDropout);
        _key = Project();
        _value = Project();
        _query = Project();
        _output = Project();
        RegisterComponents();

        Linear Project() => nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask, or null for plain causal attention → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor context = Attention.ScaledDotProduct(
            Attention.SplitHeads(_query.call(input), _heads),
            Attention.SplitHeads(_key.call(input), _heads),
            Attention.SplitHeads(_value.call(input), _heads),
            mask,
            causal: mask is null,
            dropout: training ? _dropout : 0);
        return _output.call(Attention.MergeHeads(context)).MoveToOuterDisposeScope();
    }
}
