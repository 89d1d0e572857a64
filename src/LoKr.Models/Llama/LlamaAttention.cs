using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Llama;

/// <summary>Causal self-attention with rotary positions, where several query heads may share a key and value head.</summary>
internal sealed class LlamaAttention : nn.Module<Tensor, DecoderPass, Tensor>
{
    [ComponentName(Name = "q_proj")]
    private readonly Linear _query;

    [ComponentName(Name = "k_proj")]
    private readonly Linear _key;

    [ComponentName(Name = "v_proj")]
    private readonly Linear _value;

    [ComponentName(Name = "o_proj")]
    private readonly Linear _output;

    [ComponentName(Name = "q_norm")]
    private readonly RmsNorm? _queryNorm;

    [ComponentName(Name = "k_norm")]
    private readonly RmsNorm? _keyNorm;

    private readonly int _layer;
    private readonly int _heads;
    private readonly int _keyHeads;
    private readonly int _width;
    private readonly int? _window;
    private readonly double _dropout;

    public LlamaAttention(LlamaSettings settings, int layer)
        : base(nameof(LlamaAttention))
    {
        (_layer, _heads, _keyHeads, _width) = (layer, settings.HeadCount, settings.KeyHeadCount, settings.HeadWidth);
        (_window, _dropout) = (settings.Windows[layer], settings.AttentionDropout);
        _query = Project(settings.HiddenSize, _heads * _width, settings.HasInputBias);
        _key = Project(settings.HiddenSize, _keyHeads * _width, settings.HasInputBias);
        _value = Project(settings.HiddenSize, _keyHeads * _width, settings.HasInputBias);
        _output = Project(_heads * _width, settings.HiddenSize, settings.HasOutputBias);
        if (settings.HasHeadNorms)
        {
            _queryNorm = new RmsNorm(_width, settings.NormEpsilon, settings.Device, settings.DType);
            _keyNorm = new RmsNorm(_width, settings.NormEpsilon, settings.Device, settings.DType);
        }

        RegisterComponents();

        Linear Project(long inputs, long outputs, bool bias) => nn.Linear(inputs, outputs, bias, settings.Device, settings.DType);
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, DecoderPass pass)
    {
        using DisposeScope scope = NewDisposeScope();
        long[] shape = input.shape;
        Tensor query = pass.Turn.Apply(Normalize(_queryNorm, Split(_query.call(input)))).transpose(1, 2);
        Tensor key = pass.Turn.Apply(Normalize(_keyNorm, Split(_key.call(input)))).transpose(1, 2);
        Tensor value = Split(_value.call(input)).transpose(1, 2);
        if (pass.Cache is { } cache)
        {
            (key, value) = cache.Append(_layer, key, value);
        }

        Tensor context = shape[1] == 1
            ? AttendOne(query, key, value, pass.Mask(_window))
            : AttendAll(query, key, value, pass.Mask(_window));
        return _output.call(context).MoveToOuterDisposeScope();

        // [batch, length, heads·width] → [batch, length, heads, width].
        Tensor Split(Tensor x) => x.view(shape[0], shape[1], -1, _width);
    }

    private static Tensor Normalize(RmsNorm? norm, Tensor x) => norm is null ? x : norm.call(x);

    private double Dropout => training ? _dropout : 0;

    private Tensor AttendAll(Tensor query, Tensor key, Tensor value, Tensor? mask)
    {
        int groups = _heads / _keyHeads;
        return Attention.MergeHeads(Attention.ScaledDotProduct(
            query, Attention.RepeatHeads(key, groups), Attention.RepeatHeads(value, groups), mask, causal: mask is null, Dropout));
    }

    // A single position sees all keys, so the query heads that share a key head can stand in for positions: no key is copied.
    private Tensor AttendOne(Tensor query, Tensor key, Tensor value, Tensor? mask)
    {
        long batch = query.shape[0];
        Tensor grouped = query.reshape(batch, _keyHeads, _heads / _keyHeads, _width);
        return Attention.ScaledDotProduct(grouped, key, value, mask, dropout: Dropout).reshape(batch, 1, _heads * _width);
    }
}
