using LoKr.Models.Families;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>A transformer over the pixels of a feature map, added to it.</summary>
internal sealed class Transformer2DModel : nn.Module<Tensor, Tensor, Tensor>
{
    private const double Epsilon = 1e-6;

    [ComponentName(Name = "norm")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "proj_in")]
    private readonly nn.Module<Tensor, Tensor> _in;

    [ComponentName(Name = "transformer_blocks")]
    private readonly ModuleList<BasicTransformerBlock> _blocks;

    [ComponentName(Name = "proj_out")]
    private readonly nn.Module<Tensor, Tensor> _out;

    private readonly bool _linear;

    public Transformer2DModel(TransformerSettings settings)
        : base(nameof(Transformer2DModel))
    {
        _linear = settings.HasLinearProjection;
        _norm = nn.GroupNorm(settings.GroupCount, settings.Channels, Epsilon, device: settings.Device, dtype: settings.DType);
        _in = Project();
        _blocks = new ModuleList<BasicTransformerBlock>([.. Enumerable.Range(0, settings.Depth).Select(_ => new BasicTransformerBlock(settings))]);
        _out = Project();
        RegisterComponents();

        nn.Module<Tensor, Tensor> Project() => _linear
            ? nn.Linear(settings.Channels, settings.Channels, device: settings.Device, dtype: settings.DType)
            : nn.Conv2d(settings.Channels, settings.Channels, 1, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>Features [batch, channels, height, width] and the text's hidden states [batch, length, width] → features of the same shape.</summary>
    public override Tensor forward(Tensor input, Tensor context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _norm.call(input);
        x = _linear ? _in.call(Rows(x)) : Rows(_in.call(x));
        foreach (BasicTransformerBlock block in _blocks)
        {
            Tensor next = block.call(x, context);
            x.Dispose();
            x = next;
        }

        x = _linear ? Map(_out.call(x), input.shape) : _out.call(Map(x, input.shape));
        return (x + input).MoveToOuterDisposeScope();
    }

    private static Tensor Rows(Tensor map) => map.flatten(2).transpose(1, 2);

    private static Tensor Map(Tensor rows, long[] shape) => rows.transpose(1, 2).reshape(shape);
}

/// <summary>Attention among the pixels, attention to the text and a feed-forward block, each on the normalized input and added to it.</summary>
internal sealed class BasicTransformerBlock : nn.Module<Tensor, Tensor, Tensor>
{
    private const double Epsilon = 1e-5;

    [ComponentName(Name = "norm1")]
    private readonly LayerNorm _selfNorm;

    [ComponentName(Name = "attn1")]
    private readonly AttentionLayer _self;

    [ComponentName(Name = "norm2")]
    private readonly LayerNorm _crossNorm;

    [ComponentName(Name = "attn2")]
    private readonly AttentionLayer _cross;

    [ComponentName(Name = "norm3")]
    private readonly LayerNorm _feedNorm;

    [ComponentName(Name = "ff")]
    private readonly FeedForward _feed;

    private readonly bool _onlyCrossAttention;

    public BasicTransformerBlock(TransformerSettings settings)
        : base(nameof(BasicTransformerBlock))
    {
        _onlyCrossAttention = settings.OnlyCrossAttention;
        _selfNorm = Norm();
        _self = new AttentionLayer(settings.Attention(_onlyCrossAttention ? settings.ContextWidth : settings.Channels));
        _crossNorm = Norm();
        _cross = new AttentionLayer(settings.Attention(settings.ContextWidth));
        _feedNorm = Norm();
        _feed = new FeedForward(settings);
        RegisterComponents();

        LayerNorm Norm() => nn.LayerNorm([settings.Channels], Epsilon, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>Pixels [batch, pixels, channels] and the text's hidden states [batch, length, width] → [batch, pixels, channels].</summary>
    public override Tensor forward(Tensor input, Tensor context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor normed = _selfNorm.call(input);
        Tensor x = _self.call(normed, _onlyCrossAttention ? context : null) + input;
        x = _cross.call(_crossNorm.call(x), context) + x;
        return (_feed.call(_feedNorm.call(x)) + x).MoveToOuterDisposeScope();
    }
}

/// <summary>The feed-forward block of a transformer layer, four times as wide inside.</summary>
internal sealed class FeedForward : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "net")]
    private readonly ModuleList<nn.Module<Tensor, Tensor>> _net;

    public FeedForward(TransformerSettings settings)
        : base(nameof(FeedForward))
    {
        // The middle one keeps the place of diffusers' dropout, which no configuration switches on.
        int width = settings.Channels * 4;
        _net = new ModuleList<nn.Module<Tensor, Tensor>>(
            new GeGlu(settings, width), nn.Identity(), nn.Linear(width, settings.Channels, device: settings.Device, dtype: settings.DType));
        RegisterComponents();
    }

    /// <summary>[batch, pixels, channels] → [batch, pixels, channels].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _net[2].call(_net[0].call(input)).MoveToOuterDisposeScope();
    }
}

/// <summary>A linear layer of twice the width, one half of which gates the other (Shazeer, arXiv:2002.05202).</summary>
internal sealed class GeGlu : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "proj")]
    private readonly Linear _projection;

    public GeGlu(TransformerSettings settings, int width)
        : base("GEGLU")
    {
        _projection = nn.Linear(settings.Channels, width * 2, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>[batch, pixels, channels] → [batch, pixels, width].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] parts = _projection.call(input).chunk(2, -1);
        return (parts[0] * nn.functional.gelu(parts[1])).MoveToOuterDisposeScope();
    }
}

/// <summary>
/// Multi-head attention, diffusers' <c>Attention</c>: of rows over themselves or a context, or, where it has a group norm, of the pixels of a
/// feature map over each other, added to the map.
/// </summary>
internal sealed class AttentionLayer : nn.Module<Tensor, Tensor?, Tensor>
{
    private const double Epsilon = 1e-6;

    [ComponentName(Name = "group_norm")]
    private readonly GroupNorm? _norm;

    [ComponentName(Name = "to_q")]
    private readonly Linear _query;

    [ComponentName(Name = "to_k")]
    private readonly Linear _key;

    [ComponentName(Name = "to_v")]
    private readonly Linear _value;

    [ComponentName(Name = "to_out")]
    private readonly ModuleList<Linear> _output;

    private readonly int _heads;
    private readonly bool _upcasts;

    public AttentionLayer(AttentionSettings settings)
        : base("Attention")
    {
        (_heads, _upcasts) = (settings.HeadCount, settings.Upcasts);
        _norm = settings.GroupCount is int groups ? nn.GroupNorm(groups, settings.Channels, Epsilon, device: settings.Device, dtype: settings.DType) : null;
        _query = Project(settings.Channels, settings.HasBias);
        _key = Project(settings.ContextWidth, settings.HasBias);
        _value = Project(settings.ContextWidth, settings.HasBias);
        _output = new ModuleList<Linear>(Project(settings.Channels, bias: true));
        RegisterComponents();

        Linear Project(int width, bool bias) => nn.Linear(width, settings.Channels, bias, settings.Device, settings.DType);
    }

    /// <summary>Attends.</summary>
    /// <param name="input">Rows [batch, length, channels]; with a group norm a map [batch, channels, height, width].</param>
    /// <param name="context">Rows to attend to [batch, context length, context width]; null for the input itself.</param>
    /// <returns>Of the shape of the input.</returns>
    public override Tensor forward(Tensor input, Tensor? context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor rows = _norm is null ? input : _norm.call(input).flatten(2).transpose(1, 2);
        context ??= rows;
        Tensor mixed = Attention.ScaledDotProduct(Heads(_query.call(rows)), Heads(_key.call(context)), Heads(_value.call(context)));
        Tensor output = _output[0].call(Attention.MergeHeads(mixed).to(input.dtype));
        return (_norm is null ? output : output.transpose(1, 2).reshape(input.shape) + input).MoveToOuterDisposeScope();
    }

    private Tensor Heads(Tensor x)
    {
        Tensor heads = Attention.SplitHeads(x, _heads);
        return _upcasts ? heads.to(ScalarType.Float32) : heads;
    }
}

/// <summary>The parts of an attention layer.</summary>
internal sealed record AttentionSettings
{
    public required int Channels { get; init; }

    /// <summary>Width of the rows that are attended to.</summary>
    public required int ContextWidth { get; init; }

    public required int HeadCount { get; init; }

    /// <summary>Whether query, key and value have a bias; the output always has one.</summary>
    public bool HasBias { get; init; }

    /// <summary>Groups of the norm before attention over a map; null for attention over rows.</summary>
    public int? GroupCount { get; init; }

    /// <summary>Whether attention runs in single precision under a model of half precision.</summary>
    public bool Upcasts { get; init; }

    public required Device Device { get; init; }

    public required ScalarType DType { get; init; }
}
