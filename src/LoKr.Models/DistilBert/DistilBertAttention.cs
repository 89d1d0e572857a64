using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>Multi-head self-attention with its output projection.</summary>
internal sealed class DistilBertAttention : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "q_lin")]
    private readonly Linear _query;

    [ComponentName(Name = "k_lin")]
    private readonly Linear _key;

    [ComponentName(Name = "v_lin")]
    private readonly Linear _value;

    [ComponentName(Name = "out_lin")]
    private readonly Linear _output;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    private readonly int _heads;

    public DistilBertAttention(DistilBertSettings settings)
        : base(nameof(DistilBertAttention))
    {
        _query = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _key = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _value = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _output = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _dropout = nn.Dropout(settings.AttentionDropout);
        _heads = settings.HeadCount;
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask or null → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor context = Attention.ScaledDotProduct(
            Attention.SplitHeads(_query.call(input), _heads),
            Attention.SplitHeads(_key.call(input), _heads),
            Attention.SplitHeads(_value.call(input), _heads),
            mask,
            dropout: training ? _dropout.p : 0);
        return _output.call(Attention.MergeHeads(context)).MoveToOuterDisposeScope();
    }
}
