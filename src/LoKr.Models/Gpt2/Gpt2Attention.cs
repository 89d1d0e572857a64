using LoKr.Core.Modeling;
using LoKr.Models.Generation;
using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Gpt2;

/// <summary>Causal multi-head self-attention with one projection for query, key and value.</summary>
internal sealed class Gpt2Attention : nn.Module<Tensor, Tensor?, KeyValueCache?, Tensor>
{
    [ComponentName(Name = "c_attn")]
    private readonly Conv1D _input;

    [ComponentName(Name = "c_proj")]
    private readonly Conv1D _output;

    private readonly int _layer;
    private readonly int _heads;
    private readonly double _queryScale;
    private readonly double _attentionDropout;
    private readonly double _residualDropout;

    public Gpt2Attention(Gpt2Settings settings, int layer)
        : base(nameof(Gpt2Attention))
    {
        (_layer, _heads) = (layer, settings.HeadCount);
        (_attentionDropout, _residualDropout) = (settings.AttentionDropout, settings.ResidualDropout);

        // torch's attention always divides by the root of the width: what differs from that goes into the query.
        int width = settings.HiddenSize / settings.HeadCount;
        _queryScale = (settings.ScalesAttention ? 1 : Math.Sqrt(width)) / (settings.ScalesAttentionByLayer ? layer + 1 : 1);
        _input = new Conv1D(settings.HiddenSize, 3L * settings.HiddenSize, settings.Device, settings.DType);
        _output = new Conv1D(settings.HiddenSize, settings.HiddenSize, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    /// <param name="input">Hidden states.</param>
    /// <param name="mask">Boolean [1 or batch, 1, length, length]; null for plain causal attention.</param>
    /// <param name="cache">Keys and values of earlier positions, or null.</param>
    public override Tensor forward(Tensor input, Tensor? mask, KeyValueCache? cache)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] parts = _input.call(input).chunk(3, dim: -1);
        Tensor query = Attention.SplitHeads(parts[0], _heads);
        Tensor key = Attention.SplitHeads(parts[1], _heads);
        Tensor value = Attention.SplitHeads(parts[2], _heads);
        if (_queryScale != 1)
        {
            query = query * _queryScale;
        }

        if (cache is not null)
        {
            (key, value) = cache.Append(_layer, key, value);
        }

        // A single position sees every key; torch's causal attention would show it the first one only.
        Tensor context = Attention.ScaledDotProduct(
            query, key, value, mask, causal: mask is null && input.shape[1] > 1, training ? _attentionDropout : 0);
        Tensor output = _output.call(Attention.MergeHeads(context));
        return nn.functional.dropout(output, _residualDropout, training).MoveToOuterDisposeScope();
    }
}
