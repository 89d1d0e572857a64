using System.Text.Json.Nodes;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>The sizes of a CLIP text encoder, checked.</summary>
internal sealed record ClipTextSettings
{
    /// <summary>Reads and checks a configuration.</summary>
    public ClipTextSettings(ModelConfig config, ModelBuildOptions options)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("hidden_size");
        LayerCount = config.GetSize("num_hidden_layers");
        HeadCount = config.GetSize("num_attention_heads");
        IntermediateSize = config.GetSize("intermediate_size");
        PositionCount = config.GetSize("max_position_embeddings", 77);
        LayerNormEpsilon = config.GetDouble("layer_norm_eps", 1e-5);
        AttentionDropout = config.GetProbability("attention_dropout", 0);
        EosId = config.GetInt("eos_token_id", 49407)!.Value;
        Activation = Families.Activation.Get(config, "hidden_act", "quick_gelu");
        Device = options.Device;
        DType = options.DType;

        if (HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {HeadCount}, which does not divide the hidden_size {HiddenSize}");
        }
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int IntermediateSize { get; }

    public int PositionCount { get; }

    public double LayerNormEpsilon { get; }

    public double AttentionDropout { get; }

    public int EosId { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public Device Device { get; }

    public ScalarType DType { get; }
}

/// <summary>Token and position embeddings, summed.</summary>
internal sealed class ClipTextEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "token_embedding")]
    private readonly Core.Nn.Embedding _tokens;

    [ComponentName(Name = "position_embedding")]
    private readonly Core.Nn.Embedding _positions;

    public ClipTextEmbeddings(ClipTextSettings settings)
        : base(nameof(ClipTextEmbeddings))
    {
        _tokens = new Core.Nn.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _positions = new Core.Nn.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <summary>Token ids [batch, length] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor positions = arange(input.shape[1], ScalarType.Int64, input.device).unsqueeze(0);
        return (_tokens.call(input) + _positions.call(positions)).MoveToOuterDisposeScope();
    }
}

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

/// <summary>The feed-forward block.</summary>
internal sealed class ClipTextMlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "fc1")]
    private readonly Linear _inner;

    [ComponentName(Name = "fc2")]
    private readonly Linear _outer;

    private readonly Func<Tensor, Tensor> _activation;

    public ClipTextMlp(ClipTextSettings settings)
        : base(nameof(ClipTextMlp))
    {
        _inner = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _outer = nn.Linear(settings.IntermediateSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _outer.call(_activation(_inner.call(input))).MoveToOuterDisposeScope();
    }
}

/// <summary>Attention and feed-forward block, each on the normalized input and added to it.</summary>
internal sealed class ClipTextLayer : nn.Module<Tensor, Tensor?, Tensor>
{
    [ComponentName(Name = "self_attn")]
    private readonly ClipTextAttention _attention;

    [ComponentName(Name = "layer_norm1")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "mlp")]
    private readonly ClipTextMlp _mlp;

    [ComponentName(Name = "layer_norm2")]
    private readonly LayerNorm _mlpNorm;

    public ClipTextLayer(ClipTextSettings settings)
        : base(nameof(ClipTextLayer))
    {
        _attention = new ClipTextAttention(settings);
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _mlp = new ClipTextMlp(settings);
        _mlpNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask, or null for plain causal attention → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_attentionNorm.call(input), mask);
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}

/// <summary>The layers.</summary>
internal sealed class ClipTextEncoder : nn.Module<Tensor, Tensor?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "layers")]
    private readonly ModuleList<ClipTextLayer> _layers;

    public ClipTextEncoder(ClipTextSettings settings)
        : base(nameof(ClipTextEncoder))
    {
        _layers = new ModuleList<ClipTextLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new ClipTextLayer(settings))]);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Hidden states [batch, length, hidden] and a boolean mask, or null for plain causal attention → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, Tensor? mask)
    {
        using DisposeScope scope = NewDisposeScope();
        return Run(_layers[^1], Penultimate(input, mask), mask).MoveToOuterDisposeScope();
    }

    /// <summary>The last layer's output and its input.</summary>
    public (Tensor Last, Tensor Penultimate) WithPenultimate(Tensor input, Tensor? mask)
    {
        Tensor before = Penultimate(input, mask);
        return (Run(_layers[^1], before, mask), before);
    }

    private Tensor Penultimate(Tensor input, Tensor? mask)
    {
        Tensor x = input.alias();
        for (int i = 0; i < _layers.Count - 1; i++)
        {
            Tensor next = Run(_layers[i], x, mask);
            x.Dispose();
            x = next;
        }

        return x;
    }

    private Tensor Run(ClipTextLayer layer, Tensor x, Tensor? mask)
    {
        if (Checkpoints is null)
        {
            return layer.call(x, mask);
        }

        Tensor? kept = Checkpoints.Keep(mask);
        return Checkpoints.Run(layer, x, given => layer.call(given, kept));
    }
}

/// <summary>
/// The text encoder of CLIP (Radford et al., arXiv:2103.00020), as in Stable Diffusion: <c>call(inputIds, attentionMask)</c> gives the last
/// hidden state [batch, length, hidden]. Modules are named as in transformers 5; checkpoints and adapters may have the older, published
/// names, which begin with <c>text_model.</c>
/// </summary>
public sealed class ClipTextModel : nn.Module<Tensor, Tensor?, Tensor>, ITextEncoder, IPublishedNames
{
    private const string ClassName = "CLIPTextModel";

    // Before version 4.24 transformers wrote 2 into every configuration, whatever the id that ends a text was: the largest one.
    private const int LegacyEosId = 2;

    private static readonly PublishedNames _names = new(
        ("text_model.embeddings", "embeddings"), ("text_model.encoder", "encoder"), ("text_model.final_layer_norm", "final_layer_norm"));

    [ComponentName(Name = "embeddings")]
    private readonly ClipTextEmbeddings _embeddings;

    [ComponentName(Name = "encoder")]
    private readonly ClipTextEncoder _encoder;

    [ComponentName(Name = "final_layer_norm")]
    private readonly LayerNorm _norm;

    private readonly int _eosId;
    private readonly int _vocabularySize;

    internal ClipTextModel(ModelConfig config, ClipTextSettings settings)
        : base(ClassName)
    {
        ModelType = config.ModelType;
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(ClassName);
        MaxSequenceLength = settings.PositionCount;
        (_eosId, _vocabularySize) = (settings.EosId, settings.VocabularySize);
        _embeddings = new ClipTextEmbeddings(settings);
        _encoder = new ClipTextEncoder(settings);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public int MaxSequenceLength { get; }

    /// <inheritdoc/>
    bool IPublishedNames.SavesPublishedNames { get; set; }

    internal static ModelArchitecture Registration { get; } = new(
        "clip_text_model",
        ClassName,
        (config, options) => new ClipTextModel(config, new ClipTextSettings(config, options)),
        new CheckpointLayout
        {
            // What a whole CLIP and a text encoder with a projection have beside the encoder.
            SkippedPrefixes = ["text_projection.", "vision_model.", "visual_projection.", "logit_scale"],
            SkippedSuffixes = [".position_ids"],
            Names = _names,
        });

    /// <inheritdoc/>
    public string Canonical(string name) => _names.Canonical(name);

    /// <inheritdoc/>
    public string Published(string name) => _names.Published(name);

    /// <inheritdoc/>
    public TextEncoderOutput Encode(Tensor inputIds, Tensor? attentionMask = null, bool withPenultimate = false)
    {
        if (!withPenultimate)
        {
            Tensor hidden = call(inputIds, attentionMask);
            return new TextEncoderOutput(hidden, Pool(inputIds, hidden));
        }

        using DisposeScope scope = NewDisposeScope();
        (Tensor embedded, Tensor? mask) = Embed(inputIds, attentionMask);
        (Tensor last, Tensor penultimate) = _encoder.WithPenultimate(embedded, mask);
        last = _norm.call(last);
        return new TextEncoderOutput(last.MoveToOuterDisposeScope(), Pool(inputIds, last).MoveToOuterDisposeScope())
        {
            Penultimate = penultimate.MoveToOuterDisposeScope(),
        };
    }

    /// <summary>Last hidden state [batch, length, hidden] of token ids and their padding mask (or null), both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor? attentionMask)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor embedded, Tensor? mask) = Embed(inputIds, attentionMask);
        return _norm.call(_encoder.call(embedded, mask)).MoveToOuterDisposeScope();
    }

    private (Tensor Embedded, Tensor? Mask) Embed(Tensor inputIds, Tensor? attentionMask)
    {
        TokenInput.Check(Architecture, inputIds, attentionMask, _vocabularySize, MaxSequenceLength);
        Tensor? mask = CausalMask.Create(Attention.PaddingMask(attentionMask), inputIds.shape[1], window: null, inputIds.device);
        return (_embeddings.call(inputIds), mask);
    }

    /// <summary>The hidden state [batch, hidden] of the token that ends each text; the first one where there are several, or none.</summary>
    private Tensor Pool(Tensor inputIds, Tensor hidden)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor ids = _eosId == LegacyEosId ? inputIds : inputIds.eq(_eosId).to(ScalarType.Int32);
        Tensor rows = arange(inputIds.shape[0], ScalarType.Int64, inputIds.device);
        return hidden[TensorIndex.Tensor(rows), TensorIndex.Tensor(ids.argmax(-1))].MoveToOuterDisposeScope();
    }
}

/// <summary>
/// <see cref="ClipTextModel"/> with a projection of the pooled vector, as the second text encoder of Stable Diffusion XL. Published names
/// are those of the module tree here.
/// </summary>
public sealed class ClipTextModelWithProjection : nn.Module<Tensor, Tensor?, Tensor>, ITextEncoder
{
    private const string ClassName = "CLIPTextModelWithProjection";

    [ComponentName(Name = "text_model")]
    private readonly ClipTextModel _model;

    [ComponentName(Name = "text_projection")]
    private readonly Linear _projection;

    private ClipTextModelWithProjection(ModelConfig config, ClipTextSettings settings)
        : base(ClassName)
    {
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(ClassName);
        _model = new ClipTextModel(config, settings);
        _projection = nn.Linear(settings.HiddenSize, config.GetSize("projection_dim", 512), hasBias: false, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType => _model.ModelType;

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters => _model.TiedParameters;

    /// <inheritdoc/>
    public int MaxSequenceLength => _model.MaxSequenceLength;

    internal static ModelArchitecture Registration { get; } = new(
        "clip_text_model",
        ClassName,
        (config, options) => new ClipTextModelWithProjection(config, new ClipTextSettings(config, options)),
        new CheckpointLayout { BasePrefix = "text_model.", SkippedPrefixes = ["vision_model.", "visual_projection.", "logit_scale"], SkippedSuffixes = [".position_ids"] });

    /// <inheritdoc/>
    public TextEncoderOutput Encode(Tensor inputIds, Tensor? attentionMask = null, bool withPenultimate = false)
    {
        using DisposeScope scope = NewDisposeScope();
        TextEncoderOutput output = _model.Encode(inputIds, attentionMask, withPenultimate);
        return new TextEncoderOutput(output.LastHiddenState.MoveToOuterDisposeScope(), _projection.call(output.Pooled).MoveToOuterDisposeScope())
        {
            Penultimate = output.Penultimate?.MoveToOuterDisposeScope(),
        };
    }

    /// <summary>Last hidden state [batch, length, hidden] of token ids and their padding mask (or null), both int64 [batch, length].</summary>
    public override Tensor forward(Tensor inputIds, Tensor? attentionMask) => _model.call(inputIds, attentionMask);
}
