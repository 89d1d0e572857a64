using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>The sizes and switches of a GPT-2 decoder, checked.</summary>
internal sealed record Gpt2Settings
{
    /// <summary>Reads and checks a configuration.</summary>
    public Gpt2Settings(ModelConfig config, ModelBuildOptions options)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("n_embd");
        LayerCount = config.GetSize("n_layer");
        HeadCount = config.GetSize("n_head");
        PositionCount = config.GetSize("n_positions", 1024);
        IntermediateSize = config.GetSize("n_inner", 4 * HiddenSize);
        LayerNormEpsilon = config.GetDouble("layer_norm_epsilon", 1e-5);
        EmbeddingDropout = config.GetProbability("embd_pdrop", 0.1);
        AttentionDropout = config.GetProbability("attn_pdrop", 0.1);
        ResidualDropout = config.GetProbability("resid_pdrop", 0.1);
        ScalesAttention = config.GetBool("scale_attn_weights", true);
        ScalesAttentionByLayer = config.GetBool("scale_attn_by_inverse_layer_idx", false);
        IsTied = config.GetBool("tie_word_embeddings", true);
        Activation = Families.Activation.Get(config, "activation_function", "gelu_new");
        Device = options.Device;
        DType = options.DType;

        if (HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("n_head", $"is {HeadCount}, which does not divide the n_embd {HiddenSize}");
        }

        if (config.GetBool("add_cross_attention", false))
        {
            throw config.Unsupported("add_cross_attention", "asks for attention to an encoder, which is not built");
        }

        // reorder_and_upcast_attn only says where scores are rounded in half precision; torch's attention keeps them in float32 anyway.
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int PositionCount { get; }

    public int IntermediateSize { get; }

    public double LayerNormEpsilon { get; }

    public double EmbeddingDropout { get; }

    public double AttentionDropout { get; }

    public double ResidualDropout { get; }

    /// <summary>Whether scores are divided by the root of a head's width.</summary>
    public bool ScalesAttention { get; }

    /// <summary>Whether scores are also divided by the number of the layer, counted from one.</summary>
    public bool ScalesAttentionByLayer { get; }

    public bool IsTied { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public Device Device { get; }

    public ScalarType DType { get; }
}

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

/// <summary>The feed-forward block.</summary>
internal sealed class Gpt2Mlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "c_fc")]
    private readonly Conv1D _inner;

    [ComponentName(Name = "c_proj")]
    private readonly Conv1D _outer;

    private readonly Func<Tensor, Tensor> _activation;
    private readonly double _dropout;

    public Gpt2Mlp(Gpt2Settings settings)
        : base(nameof(Gpt2Mlp))
    {
        _inner = new Conv1D(settings.HiddenSize, settings.IntermediateSize, settings.Device, settings.DType);
        _outer = new Conv1D(settings.IntermediateSize, settings.HiddenSize, settings.Device, settings.DType);
        (_activation, _dropout) = (settings.Activation, settings.ResidualDropout);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return nn.functional.dropout(_outer.call(_activation(_inner.call(input))), _dropout, training).MoveToOuterDisposeScope();
    }
}

/// <summary>Attention and feed-forward block, each on the normalized input and added to it.</summary>
internal sealed class Gpt2Block : nn.Module<Tensor, Tensor?, KeyValueCache?, Tensor>
{
    [ComponentName(Name = "ln_1")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "attn")]
    private readonly Gpt2Attention _attention;

    [ComponentName(Name = "ln_2")]
    private readonly LayerNorm _mlpNorm;

    [ComponentName(Name = "mlp")]
    private readonly Gpt2Mlp _mlp;

    public Gpt2Block(Gpt2Settings settings, int layer)
        : base(nameof(Gpt2Block))
    {
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _attention = new Gpt2Attention(settings, layer);
        _mlpNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _mlp = new Gpt2Mlp(settings);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden]; mask and cache as in <see cref="Gpt2Attention"/>.</summary>
    public override Tensor forward(Tensor input, Tensor? mask, KeyValueCache? cache)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_attentionNorm.call(input), mask, cache);
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}

/// <summary>Token and position embeddings, layers and the final norm.</summary>
internal sealed class Gpt2Model : nn.Module<Tensor, Tensor?, KeyValueCache?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "wte")]
    private readonly Core.Nn.Embedding _tokens;

    [ComponentName(Name = "wpe")]
    private readonly Core.Nn.Embedding _positions;

    [ComponentName(Name = "h")]
    private readonly ModuleList<Gpt2Block> _layers;

    [ComponentName(Name = "ln_f")]
    private readonly LayerNorm _norm;

    private readonly double _dropout;

    public Gpt2Model(Gpt2Settings settings)
        : base(nameof(Gpt2Model))
    {
        _tokens = new Core.Nn.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _positions = new Core.Nn.Embedding(settings.PositionCount, settings.HiddenSize, settings.Device, settings.DType);
        _layers = new ModuleList<Gpt2Block>([.. Enumerable.Range(0, settings.LayerCount).Select(layer => new Gpt2Block(settings, layer))]);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _dropout = settings.EmbeddingDropout;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Token ids [batch, length] → hidden states [batch, length, hidden].</summary>
    /// <param name="input">Token ids; with a cache, those that follow what it holds.</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding [batch, length], or null.</param>
    /// <param name="cache">Keys and values of earlier positions, to which those of the input are added; or null.</param>
    public override Tensor forward(Tensor input, Tensor? attentionMask, KeyValueCache? cache)
    {
        using DisposeScope scope = NewDisposeScope();
        long start = cache?.Length ?? 0;
        long length = input.shape[1];
        Tensor positions = arange(start, start + length, ScalarType.Int64, input.device).unsqueeze(0);
        Tensor x = nn.functional.dropout(_tokens.call(input) + _positions.call(positions), _dropout, training);
        Tensor? mask = CausalMask.Create(Attention.PaddingMask(attentionMask), length, window: null, x.device);
        Tensor? kept = Checkpoints?.Keep(mask);
        foreach (Gpt2Block layer in _layers)
        {
            Tensor next = Checkpoints is null || cache is not null
                ? layer.call(x, mask, cache)
                : Checkpoints.Run(layer, x, given => layer.call(given, kept, null));
            x.Dispose();
            x = next;
        }

        cache?.Advance(length);
        return _norm.call(x).MoveToOuterDisposeScope();
    }
}

/// <summary>
/// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019) with output embeddings. Its linear layers are
/// <see cref="Core.Nn.Conv1D"/>. Modules and parameters are named as in transformers.
/// </summary>
public sealed class Gpt2LMHeadModel : CausalLanguageModel
{
    private const string ClassName = "GPT2LMHeadModel";
    private const string HeadName = "lm_head";

    private static readonly Dictionary<string, string> _tied = new() { [HeadName + ".weight"] = "transformer.wte.weight" };

    [ComponentName(Name = "transformer")]
    private readonly Gpt2Model _model;

    [ComponentName(Name = HeadName)]
    private readonly Linear _head;

    private readonly int _layerCount;

    private Gpt2LMHeadModel(ModelConfig config, Gpt2Settings settings)
        : base(ClassName, config, settings.PositionCount, hasPositionTable: true, defaultEosId: 50256)
    {
        TiedParameters = settings.IsTied ? _tied : new Dictionary<string, string>();
        _layerCount = settings.LayerCount;
        _model = new Gpt2Model(settings);
        _head = nn.Linear(settings.HiddenSize, settings.VocabularySize, false, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override string? OutputEmbeddingsName => HeadName;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, string> TiedParameters { get; }

    internal static ModelArchitecture Registration { get; } = new(
        "gpt2",
        ClassName,
        (config, options) => new Gpt2LMHeadModel(config, new Gpt2Settings(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "transformer.",

            // Causal masks, which the published checkpoints hold beside the weights.
            SkippedSuffixes = [".attn.bias", ".attn.masked_bias"],
        });

    /// <inheritdoc/>
    public override Tensor Project(Tensor hiddenStates) => _head.call(hiddenStates);

    private protected override KeyValueCache CreateCache() => new(new int?[_layerCount]);

    private protected override Tensor Run(Tensor inputIds, Tensor? attentionMask, KeyValueCache? cache) => _model.call(inputIds, attentionMask, cache);
}
