using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>Roles of the modules in a transformer layer. The parts that a family lists decide how its layers compute.</summary>
internal enum LayerPart
{
    /// <summary>Norm of the attention's input (pre-norm).</summary>
    AttentionInputNorm,

    /// <summary>Projection to queries.</summary>
    Query,

    /// <summary>Projection to keys.</summary>
    Key,

    /// <summary>Projection to values.</summary>
    Value,

    /// <summary>One projection to queries, keys and values, side by side, in the place of the three.</summary>
    QueryKeyValue,

    /// <summary>Projection of positions to queries, in the place of that of the hidden states.</summary>
    PositionQuery,

    /// <summary>Projection of positions to keys, in the place of that of the hidden states.</summary>
    PositionKey,

    /// <summary>Norm of the queries: of each head's, or of all together.</summary>
    QueryNorm,

    /// <summary>Norm of the keys: of each head's, or of all together.</summary>
    KeyNorm,

    /// <summary>Output projection of the attention.</summary>
    AttentionOutput,

    /// <summary>Norm of the attention's output before it is added to the input.</summary>
    AttentionOutputNorm,

    /// <summary>Norm of the sum of the attention and its input (post-norm).</summary>
    AttentionSumNorm,

    /// <summary>Norm of the feed-forward block's input (pre-norm).</summary>
    MlpInputNorm,

    /// <summary>Projection whose activation scales the inner one: a gated block.</summary>
    Gate,

    /// <summary>Projection to the inner size.</summary>
    Up,

    /// <summary>One projection to both, the part with the activation first, in the place of the two.</summary>
    GateUp,

    /// <summary>Projection back to the hidden size.</summary>
    Down,

    /// <summary>Norm of the feed-forward block's output before it is added to the input.</summary>
    MlpOutputNorm,

    /// <summary>Norm of the sum of the feed-forward block and its input (post-norm).</summary>
    MlpSumNorm,
}

/// <summary>Kinds of norm in a stack.</summary>
internal enum NormKind
{
    /// <summary>Layer norm with weight and bias.</summary>
    Layer,

    /// <summary>Root mean square norm with a weight.</summary>
    RootMeanSquare,

    /// <summary>Root mean square norm with the factor 1 + weight.</summary>
    RootMeanSquareOnePlus,
}

/// <summary>The layers of a model as data: sizes, switches and the names of the modules.</summary>
internal sealed record StackSettings
{
    /// <summary>Full name of the list of layers, for example <c>bert.encoder.layer</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The modules of a layer in the checkpoint's order, each with its name below the layer, which may have several parts.</summary>
    public required IReadOnlyList<(LayerPart Part, string Name)> Layer { get; init; }

    /// <summary>Whether a layer has one of them; all do unless a family says otherwise.</summary>
    public Func<int, LayerPart, bool> HasPart { get; init; } = static (_, _) => true;

    /// <summary>Number of layers.</summary>
    public required int LayerCount { get; init; }

    /// <summary>Name of a layer below the list, by its index.</summary>
    public Func<int, string> NameOf { get; init; } = static index => $"{index}";

    /// <summary>Indexes of the layers in the order in which they run; a layer may run several times.</summary>
    public IReadOnlyList<int> Order { get => field ??= [.. Enumerable.Range(0, LayerCount)]; init; }

    /// <summary>Width of the hidden states.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>Inner width of the feed-forward block.</summary>
    public required int IntermediateSize { get; init; }

    /// <summary>Number of query heads.</summary>
    public required int HeadCount { get; init; }

    /// <summary>Number of key and value heads; fewer than query heads in grouped-query attention (Ainslie et al., arXiv:2305.13245).</summary>
    public int KeyHeadCount { get => field == 0 ? HeadCount : field; init; }

    /// <summary>Width of a head.</summary>
    public int HeadWidth { get => field == 0 ? HiddenSize / HeadCount : field; init; }

    /// <summary>
    /// For each layer the most positions that one position sees, itself included, in an encoder as many on both sides; null for all.
    /// </summary>
    public IReadOnlyList<int?> Windows { get => field ??= new int?[LayerCount]; init; }

    /// <summary>Rotary positions of each layer, null for a layer that does not rotate; empty where positions are embedded.</summary>
    public IReadOnlyList<RopeSettings?> Ropes { get; init; } = [];

    /// <summary>Activation of the feed-forward block.</summary>
    public required Func<Tensor, Tensor> Activation { get; init; }

    /// <summary>Kind of the norms.</summary>
    public NormKind Norm { get; init; }

    /// <summary>Epsilon of the norms.</summary>
    public required double NormEpsilon { get; init; }

    /// <summary>Whether layer norms have a bias.</summary>
    public bool HasNormBias { get; init; } = true;

    /// <summary>Whether queries and keys are normalized over all heads together.</summary>
    public bool NormsAllHeads { get; init; }

    /// <summary>Whether the projections are <see cref="Conv1D"/>, with transposed weights and always a bias.</summary>
    public bool HasTransposedWeights { get; init; }

    /// <summary>Whether the projections to queries, keys and values have a bias.</summary>
    public bool HasInputBias { get; init; } = true;

    /// <summary>Whether the output projection of the attention has a bias.</summary>
    public bool HasOutputBias { get; init; } = true;

    /// <summary>Whether the projections of the feed-forward block have a bias.</summary>
    public bool HasMlpBias { get; init; } = true;

    /// <summary>Factor on the queries of a layer, beside the division by the root of a head's width.</summary>
    public Func<int, double> QueryScale { get; init; } = static _ => 1;

    /// <summary>Factor on the output of a block before it is added to the input.</summary>
    public double ResidualScale { get; init; } = 1;

    /// <summary>Dropout of the attention weights.</summary>
    public double AttentionDropout { get; init; }

    /// <summary>Dropout of the attention's output before it is added to the input.</summary>
    public double AttentionOutputDropout { get; init; }

    /// <summary>Dropout inside the feed-forward block, before its last projection.</summary>
    public double MlpInnerDropout { get; init; }

    /// <summary>Dropout of the feed-forward block's output before it is added to the input.</summary>
    public double MlpDropout { get; init; }

    /// <summary>Device and type of the parameters.</summary>
    public required ModelBuildOptions Options { get; init; }

    /// <summary>Reads sizes, activation and epsilon under the keys that BERT has and most encoders after it.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="options">Device and type of the parameters.</param>
    /// <param name="name">Full name of the list of layers.</param>
    /// <param name="layer">The modules of a layer.</param>
    /// <param name="activation">Activation where the configuration names none.</param>
    /// <param name="normEpsilon">Epsilon of the norms where the configuration has none.</param>
    public static StackSettings Read(
        ModelConfig config, ModelBuildOptions options, string name, IReadOnlyList<(LayerPart Part, string Name)> layer, string activation = "gelu", double normEpsilon = 1e-12) => new()
    {
        Name = name,
        Layer = layer,
        LayerCount = config.GetSize("num_hidden_layers"),
        HiddenSize = config.GetSize("hidden_size"),
        IntermediateSize = config.GetSize("intermediate_size"),
        HeadCount = ReadHeads(config, "num_attention_heads", "hidden_size"),
        Activation = Families.Activation.Get(config, "hidden_act", activation),
        NormEpsilon = config.GetDouble("layer_norm_eps", normEpsilon),
        Options = options,
    };

    /// <summary>Reads the number of heads, which must divide the hidden size.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="heads">Key of the number of heads.</param>
    /// <param name="hidden">Key of the hidden size.</param>
    public static int ReadHeads(ModelConfig config, string heads, string hidden)
    {
        (int count, int size) = (config.GetSize(heads), config.GetSize(hidden));
        return size % count == 0 ? count : throw config.Invalid(heads, $"is {count}, which does not divide the {hidden} {size}");
    }

    /// <summary>A norm over the last dimension.</summary>
    /// <param name="width">Size of that dimension.</param>
    public nn.Module<Tensor, Tensor> CreateNorm(long width) => Norm switch
    {
        NormKind.Layer => nn.LayerNorm([width], NormEpsilon, bias: HasNormBias, device: Options.Device, dtype: Options.DType),
        NormKind.RootMeanSquare => new RmsNorm(width, NormEpsilon, Options.Device, Options.DType),
        NormKind.RootMeanSquareOnePlus => new RmsNorm(width, NormEpsilon, Options.Device, Options.DType, addsOne: true),
        _ => throw new InvalidOperationException($"There is no norm of kind {Norm}."),
    };

    /// <summary>The module of a layer with a role.</summary>
    public nn.Module<Tensor, Tensor> Create(LayerPart part) => part switch
    {
        LayerPart.Query or LayerPart.PositionQuery or LayerPart.PositionKey => Project(HiddenSize, HeadCount * HeadWidth, HasInputBias),
        LayerPart.Key or LayerPart.Value => Project(HiddenSize, KeyHeadCount * HeadWidth, HasInputBias),
        LayerPart.QueryKeyValue => Project(HiddenSize, (HeadCount + (2 * KeyHeadCount)) * HeadWidth, HasInputBias),
        LayerPart.QueryNorm => CreateNorm(NormsAllHeads ? HeadCount * HeadWidth : HeadWidth),
        LayerPart.KeyNorm => CreateNorm(NormsAllHeads ? KeyHeadCount * HeadWidth : HeadWidth),
        LayerPart.AttentionOutput => Project(HeadCount * HeadWidth, HiddenSize, HasOutputBias),
        LayerPart.Gate or LayerPart.Up => Project(HiddenSize, IntermediateSize, HasMlpBias),
        LayerPart.GateUp => Project(HiddenSize, 2L * IntermediateSize, HasMlpBias),
        LayerPart.Down => Project(IntermediateSize, HiddenSize, HasMlpBias),
        _ => CreateNorm(HiddenSize),
    };

    private nn.Module<Tensor, Tensor> Project(long inputs, long outputs, bool hasBias) => HasTransposedWeights
        ? new Conv1D(inputs, outputs, Options.Device, Options.DType)
        : nn.Linear(inputs, outputs, hasBias, Options.Device, Options.DType);
}

/// <summary>The end of a layer behind its two blocks.</summary>
internal interface ILayerEnding
{
    /// <summary>The output of the layer, [batch, length, hidden].</summary>
    /// <param name="input">Its input [batch, length, hidden].</param>
    /// <param name="output">Its output so far.</param>
    /// <param name="pass">What the layers share in this pass.</param>
    /// <param name="training">Whether dropout applies.</param>
    Tensor Run(Tensor input, Tensor output, AttentionPass pass, bool training);
}

/// <summary>
/// A transformer layer (Vaswani et al., arXiv:1706.03762): attention and feed-forward block, each added to its input, with norms before or after.
/// </summary>
internal sealed class TransformerLayer : nn.Module<Tensor, AttentionPass, Tensor>
{
    private readonly SelfAttention _attention;
    private readonly FeedForward _mlp;
    private readonly double _residualScale;
    private readonly ILayerEnding? _ending;
    private readonly nn.Module<Tensor, Tensor>? _attentionInputNorm;
    private readonly nn.Module<Tensor, Tensor>? _attentionOutputNorm;
    private readonly nn.Module<Tensor, Tensor>? _attentionSumNorm;
    private readonly nn.Module<Tensor, Tensor>? _mlpInputNorm;
    private readonly nn.Module<Tensor, Tensor>? _mlpOutputNorm;
    private readonly nn.Module<Tensor, Tensor>? _mlpSumNorm;

    /// <summary>Creates the modules of a layer.</summary>
    /// <param name="settings">Sizes, switches and names.</param>
    /// <param name="index">Index of the layer.</param>
    /// <param name="ending">What the layer ends with, or null.</param>
    public TransformerLayer(StackSettings settings, int index, ILayerEnding? ending = null)
        : base(nameof(TransformerLayer))
    {
        Dictionary<LayerPart, nn.Module<Tensor, Tensor>> parts = settings.Layer.Where(item => settings.HasPart(index, item.Part))
            .ToDictionary(item => item.Part, item => this.Place(item.Name, settings.Create(item.Part)));
        _attention = new SelfAttention(settings, index, parts);
        _mlp = new FeedForward(settings, parts);
        (_residualScale, _ending) = (settings.ResidualScale, ending);
        _attentionInputNorm = parts.GetValueOrDefault(LayerPart.AttentionInputNorm);
        _attentionOutputNorm = parts.GetValueOrDefault(LayerPart.AttentionOutputNorm);
        _attentionSumNorm = parts.GetValueOrDefault(LayerPart.AttentionSumNorm);
        _mlpInputNorm = parts.GetValueOrDefault(LayerPart.MlpInputNorm);
        _mlpOutputNorm = parts.GetValueOrDefault(LayerPart.MlpOutputNorm);
        _mlpSumNorm = parts.GetValueOrDefault(LayerPart.MlpSumNorm);
    }

    /// <summary>Hidden states [batch, length, hidden] → [batch, length, hidden], or [count, hidden] of the places that are read.</summary>
    public override Tensor forward(Tensor input, AttentionPass pass)
    {
        using DisposeScope scope = NewDisposeScope();
        if (_ending is not null && pass.Places is not null)
        {
            // Its ending may look at neighbors.
            return pass.Read(forward(input, pass.Reading(null))).MoveToOuterDisposeScope();
        }

        Tensor x = Attend(input, pass);
        Tensor fed = Normalize(_mlpOutputNorm, _mlp.Run(Normalize(_mlpInputNorm, x), training));
        Tensor output = Normalize(_mlpSumNorm, Add(x, fed));
        return (_ending is null ? output : _ending.Run(input, output, pass, training)).MoveToOuterDisposeScope();
    }

    /// <summary>The names are the family's, not those of the fields: everything is registered by the constructor.</summary>
    protected override void RegisterComponents()
    {
    }

    // In a scope of its own: memory that the backward pass does not need is free for the other block.
    private Tensor Attend(Tensor input, AttentionPass pass)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor attended = Normalize(_attentionOutputNorm, _attention.Run(Normalize(_attentionInputNorm, input), pass, training));
        return Normalize(_attentionSumNorm, Add(pass.Read(input), attended)).MoveToOuterDisposeScope();
    }

    private static Tensor Normalize(nn.Module<Tensor, Tensor>? norm, Tensor x) => norm is null ? x : norm.call(x);

    private Tensor Add(Tensor input, Tensor output) => _residualScale == 1 ? input + output : input.add(output, _residualScale);
}

/// <summary>
/// Multi-head self-attention. Several query heads may share a key and value head, positions may be rotations of queries and keys, and keys
/// and values of earlier positions may come from a cache.
/// </summary>
internal sealed class SelfAttention
{
    private readonly StackSettings _settings;
    private readonly int _layer;
    private readonly double _queryScale;
    private readonly nn.Module<Tensor, Tensor>? _query;
    private readonly nn.Module<Tensor, Tensor>? _key;
    private readonly nn.Module<Tensor, Tensor>? _value;
    private readonly nn.Module<Tensor, Tensor>? _queryKeyValue;
    private readonly nn.Module<Tensor, Tensor>? _positionQuery;
    private readonly nn.Module<Tensor, Tensor>? _positionKey;
    private readonly nn.Module<Tensor, Tensor>? _queryNorm;
    private readonly nn.Module<Tensor, Tensor>? _keyNorm;
    private readonly nn.Module<Tensor, Tensor> _output;

    /// <summary>Takes its modules from the parts of a layer.</summary>
    public SelfAttention(StackSettings settings, int layer, IReadOnlyDictionary<LayerPart, nn.Module<Tensor, Tensor>> parts)
    {
        (_settings, _layer, _queryScale) = (settings, layer, settings.QueryScale(layer));
        if (!parts.TryGetValue(LayerPart.QueryKeyValue, out _queryKeyValue))
        {
            (_query, _key, _value) = (parts[LayerPart.Query], parts[LayerPart.Key], parts[LayerPart.Value]);
        }

        _positionQuery = parts.GetValueOrDefault(LayerPart.PositionQuery) ?? _query;
        _positionKey = parts.GetValueOrDefault(LayerPart.PositionKey) ?? _key;
        _queryNorm = parts.GetValueOrDefault(LayerPart.QueryNorm);
        _keyNorm = parts.GetValueOrDefault(LayerPart.KeyNorm);
        _output = parts[LayerPart.AttentionOutput];
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden], or [count, hidden] of the places that are read.</summary>
    public Tensor Run(Tensor input, AttentionPass pass, bool training)
    {
        using DisposeScope scope = NewDisposeScope();
        return _output.call(pass.Read(Context(input, pass, training))).WithDropout(_settings.AttentionOutputDropout, training).MoveToOuterDisposeScope();
    }

    // Each stage has a scope of its own: memory that the backward pass does not need is free for the next one.
    private Tensor Context(Tensor input, AttentionPass pass, bool training)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor query, Tensor key, Tensor value) = ProjectHeads(input, pass.Rotation(_layer));
        Tensor? mask = Mask(pass, query, key);
        query = _queryScale == 1 ? query : query * _queryScale;
        if (pass.Cache is { } cache)
        {
            (key, value) = cache.Append(_layer, key, value);
        }

        double dropout = training ? _settings.AttentionDropout : 0;
        Tensor context = input.shape[1] == 1
            ? AttendOne(query, key, value, mask, dropout)
            : AttendAll(query, key, value, mask, pass.IsCausal && mask is null, dropout);
        return context.MoveToOuterDisposeScope();
    }

    private (Tensor Query, Tensor Key, Tensor Value) ProjectHeads(Tensor input, Rotation? rotation)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor query, Tensor key, Tensor value) = Project(input);
        return (
            Heads(query, _queryNorm, rotation).MoveToOuterDisposeScope(),
            Heads(key, _keyNorm, rotation).MoveToOuterDisposeScope(),
            Heads(value).MoveToOuterDisposeScope());
    }

    // Boolean (true takes part), or scores by distance with −∞ for what does not take part.
    private Tensor? Mask(AttentionPass pass, Tensor query, Tensor key)
    {
        Tensor? mask = pass.Mask(_settings.Windows[_layer]);
        if (pass.Scores is null)
        {
            return mask;
        }

        Tensor scores = pass.Scores.Get(new PositionQuery(query, key, _positionQuery, _positionKey));
        return mask is null ? scores : scores.masked_fill(mask.logical_not(), double.NegativeInfinity);
    }

    private (Tensor Query, Tensor Key, Tensor Value) Project(Tensor input)
    {
        if (_queryKeyValue is null)
        {
            return (_query!.call(input), _key!.call(input), _value!.call(input));
        }

        long keyWidth = _settings.KeyHeadCount * _settings.HeadWidth;
        Tensor[] parts = _queryKeyValue.call(input).split([_settings.HeadCount * _settings.HeadWidth, keyWidth, keyWidth], dim: -1);
        return (parts[0], parts[1], parts[2]);
    }

    // [batch, length, heads·width] → [batch, heads, length, width], normalized and rotated by position where the family does so.
    private Tensor Heads(Tensor x, nn.Module<Tensor, Tensor>? norm = null, Rotation? rotation = null)
    {
        long[] shape = x.shape;
        x = norm is not null && _settings.NormsAllHeads ? norm.call(x) : x;
        Tensor heads = x.view(shape[0], shape[1], -1, _settings.HeadWidth);
        heads = norm is null || _settings.NormsAllHeads ? heads : norm.call(heads);
        return (rotation is { } positions ? positions.Apply(heads) : heads).transpose(1, 2);
    }

    private Tensor AttendAll(Tensor query, Tensor key, Tensor value, Tensor? mask, bool causal, double dropout)
    {
        int groups = _settings.HeadCount / _settings.KeyHeadCount;
        return Attention.MergeHeads(Attention.ScaledDotProduct(
            query, Attention.RepeatHeads(key, groups), Attention.RepeatHeads(value, groups), mask, causal, dropout));
    }

    // A single position sees all keys, so the query heads that share a key head can stand in for positions: no key is copied.
    private Tensor AttendOne(Tensor query, Tensor key, Tensor value, Tensor? mask, double dropout)
    {
        long batch = query.shape[0];
        Tensor grouped = query.reshape(batch, _settings.KeyHeadCount, -1, _settings.HeadWidth);
        return Attention.ScaledDotProduct(grouped, key, value, mask, dropout: dropout).reshape(batch, 1, -1);
    }
}

/// <summary>The feed-forward block of a layer: down(activation(up(x))), or down(activation(gate(x)) · up(x)) (Shazeer, arXiv:2002.05202).</summary>
internal sealed class FeedForward
{
    private readonly nn.Module<Tensor, Tensor>? _gate;
    private readonly nn.Module<Tensor, Tensor>? _gateUp;
    private readonly nn.Module<Tensor, Tensor>? _up;
    private readonly nn.Module<Tensor, Tensor> _down;
    private readonly StackSettings _settings;

    /// <summary>Takes its modules from the parts of a layer.</summary>
    public FeedForward(StackSettings settings, IReadOnlyDictionary<LayerPart, nn.Module<Tensor, Tensor>> parts)
    {
        if (!parts.TryGetValue(LayerPart.GateUp, out _gateUp))
        {
            (_gate, _up) = (parts.GetValueOrDefault(LayerPart.Gate), parts[LayerPart.Up]);
        }

        (_down, _settings) = (parts[LayerPart.Down], settings);
    }

    /// <summary>[..., hidden] → [..., hidden].</summary>
    public Tensor Run(Tensor input, bool training)
    {
        using DisposeScope scope = NewDisposeScope();
        return _down.call(Inner(input).WithDropout(_settings.MlpInnerDropout, training)).WithDropout(_settings.MlpDropout, training).MoveToOuterDisposeScope();
    }

    private Tensor Inner(Tensor input)
    {
        if (_gateUp is not null)
        {
            Tensor[] halves = _gateUp.call(input).chunk(2, -1);
            return _settings.Activation(halves[0]) * halves[1];
        }

        return _gate is null ? _settings.Activation(_up!.call(input)) : _settings.Activation(_gate.call(input)) * _up!.call(input);
    }
}
