using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>What tells Llama, Mistral, Qwen2 and Qwen3 apart: everything else of the decoder is the same.</summary>
internal sealed record LlamaFamily
{
    public static LlamaFamily Llama { get; } = new()
    {
        ModelType = "llama",
        Name = "LlamaForCausalLM",
        DefaultPositions = 2048,
        DefaultEosId = 2,
        InputBias = config => config.GetBool("attention_bias", false),
        OutputBias = config => config.GetBool("attention_bias", false),
        MlpBias = config => config.GetBool("mlp_bias", false),
        Windows = (_, layers) => new int?[layers],
    };

    public static LlamaFamily Mistral { get; } = new()
    {
        ModelType = "mistral",
        Name = "MistralForCausalLM",
        DefaultPositions = 131072,
        DefaultKeyHeads = 8,
        DefaultEosId = 2,
        Windows = SlidingWindow.OfMistral,
    };

    public static LlamaFamily Qwen2 { get; } = new()
    {
        ModelType = "qwen2",
        Name = "Qwen2ForCausalLM",
        DefaultPositions = 32768,
        DefaultKeyHeads = 32,
        InputBias = _ => true,
        Windows = SlidingWindow.OfQwen,
    };

    public static LlamaFamily Qwen3 { get; } = new()
    {
        ModelType = "qwen3",
        Name = "Qwen3ForCausalLM",
        DefaultPositions = 32768,
        DefaultKeyHeads = 32,
        DefaultHeadWidth = 128,
        InputBias = config => config.GetBool("attention_bias", false),
        OutputBias = config => config.GetBool("attention_bias", false),
        HasHeadNorms = true,
        Windows = SlidingWindow.OfQwen,
    };

    /// <summary>The <c>model_type</c>.</summary>
    public required string ModelType { get; init; }

    /// <summary>Class name as transformers has it.</summary>
    public required string Name { get; init; }

    /// <summary>Longest sequence where the configuration leaves it out.</summary>
    public required int DefaultPositions { get; init; }

    /// <summary>Key and value heads where the configuration leaves the key out; null for as many as query heads, which an explicit null means too.</summary>
    public int? DefaultKeyHeads { get; init; }

    /// <summary>Width of a head where the configuration leaves it out; null for hidden size / heads.</summary>
    public int? DefaultHeadWidth { get; init; }

    /// <summary>End of text where the configuration leaves the key out.</summary>
    public int? DefaultEosId { get; init; }

    /// <summary>Whether query, key and value projections have a bias.</summary>
    public Func<ModelConfig, bool> InputBias { get; init; } = _ => false;

    /// <summary>Whether the output projection of the attention has a bias.</summary>
    public Func<ModelConfig, bool> OutputBias { get; init; } = _ => false;

    /// <summary>Whether the feed-forward layers have biases.</summary>
    public Func<ModelConfig, bool> MlpBias { get; init; } = _ => false;

    /// <summary>Whether queries and keys are normalized per head.</summary>
    public bool HasHeadNorms { get; init; }

    /// <summary>Attention window of each of so many layers; null for all positions.</summary>
    public required Func<ModelConfig, int, int?[]> Windows { get; init; }
}

/// <summary>The sizes and switches of a decoder, checked.</summary>
internal sealed record LlamaSettings
{
    /// <summary>Reads and checks a configuration.</summary>
    public LlamaSettings(ModelConfig config, ModelBuildOptions options, LlamaFamily family)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("hidden_size");
        IntermediateSize = config.GetSize("intermediate_size");
        LayerCount = config.GetSize("num_hidden_layers");
        HeadCount = config.GetSize("num_attention_heads");

        // An explicit null means as many as query heads, which is not what the missing key means in every family.
        KeyHeadCount = config.GetSize("num_key_value_heads", config.Json.ContainsKey("num_key_value_heads") ? HeadCount : family.DefaultKeyHeads ?? HeadCount);
        HeadWidth = config.GetSize("head_dim", config.Json.ContainsKey("head_dim") ? HiddenSize / HeadCount : family.DefaultHeadWidth ?? HiddenSize / HeadCount);
        CheckHeads(config);

        NormEpsilon = config.GetDouble("rms_norm_eps", 1e-6);
        AttentionDropout = config.GetProbability("attention_dropout", 0);
        HasInputBias = family.InputBias(config);
        HasOutputBias = family.OutputBias(config);
        HasMlpBias = family.MlpBias(config);
        HasHeadNorms = family.HasHeadNorms;
        IsTied = config.GetBool("tie_word_embeddings", false);
        Activation = Families.Activation.Get(config, "hidden_act", "silu");
        Windows = family.Windows(config, LayerCount);
        Rope = new RopeSettings(config, HeadWidth, config.GetSize("max_position_embeddings", family.DefaultPositions));
        Device = options.Device;
        DType = options.DType;
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int IntermediateSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int KeyHeadCount { get; }

    public int HeadWidth { get; }

    public double NormEpsilon { get; }

    public double AttentionDropout { get; }

    public bool HasInputBias { get; }

    public bool HasOutputBias { get; }

    public bool HasMlpBias { get; }

    public bool HasHeadNorms { get; }

    public bool IsTied { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public IReadOnlyList<int?> Windows { get; }

    public RopeSettings Rope { get; }

    public Device Device { get; }

    public ScalarType DType { get; }

    private void CheckHeads(ModelConfig config)
    {
        if (HeadWidth == 0 || HeadWidth % 2 != 0)
        {
            throw config.Invalid("head_dim", $"is {HeadWidth}; the channels of a head are turned in pairs");
        }

        if (!config.Has("head_dim") && HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {HeadCount}, which does not divide the hidden_size {HiddenSize}");
        }

        if (HeadCount % KeyHeadCount != 0)
        {
            throw config.Invalid("num_key_value_heads", $"is {KeyHeadCount}, which does not divide the {HeadCount} attention heads");
        }
    }
}

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

/// <summary>The gated feed-forward layers (SwiGLU, Shazeer, arXiv:2002.05202).</summary>
internal sealed class LlamaMlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "gate_proj")]
    private readonly Linear _gate;

    [ComponentName(Name = "up_proj")]
    private readonly Linear _up;

    [ComponentName(Name = "down_proj")]
    private readonly Linear _down;

    private readonly Func<Tensor, Tensor> _activation;

    public LlamaMlp(LlamaSettings settings)
        : base(nameof(LlamaMlp))
    {
        _gate = nn.Linear(settings.HiddenSize, settings.IntermediateSize, settings.HasMlpBias, settings.Device, settings.DType);
        _up = nn.Linear(settings.HiddenSize, settings.IntermediateSize, settings.HasMlpBias, settings.Device, settings.DType);
        _down = nn.Linear(settings.IntermediateSize, settings.HiddenSize, settings.HasMlpBias, settings.Device, settings.DType);
        _activation = settings.Activation;
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _down.call(_activation(_gate.call(input)) * _up.call(input)).MoveToOuterDisposeScope();
    }
}

/// <summary>Attention and feed-forward layers, each on the normalized input and added to it.</summary>
internal sealed class LlamaDecoderLayer : nn.Module<Tensor, DecoderPass, Tensor>
{
    [ComponentName(Name = "self_attn")]
    private readonly LlamaAttention _attention;

    [ComponentName(Name = "mlp")]
    private readonly LlamaMlp _mlp;

    [ComponentName(Name = "input_layernorm")]
    private readonly RmsNorm _inputNorm;

    [ComponentName(Name = "post_attention_layernorm")]
    private readonly RmsNorm _mlpNorm;

    public LlamaDecoderLayer(LlamaSettings settings, int layer)
        : base(nameof(LlamaDecoderLayer))
    {
        _attention = new LlamaAttention(settings, layer);
        _mlp = new LlamaMlp(settings);
        _inputNorm = new RmsNorm(settings.HiddenSize, settings.NormEpsilon, settings.Device, settings.DType);
        _mlpNorm = new RmsNorm(settings.HiddenSize, settings.NormEpsilon, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input, DecoderPass pass)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_inputNorm.call(input), pass);
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}

/// <summary>Embeddings, layers and the final norm.</summary>
internal sealed class LlamaModel : nn.Module<Tensor, Tensor?, KeyValueCache?, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "embed_tokens")]
    private readonly Core.Nn.Embedding _embeddings;

    [ComponentName(Name = "layers")]
    private readonly ModuleList<LlamaDecoderLayer> _layers;

    [ComponentName(Name = "norm")]
    private readonly RmsNorm _norm;

    private readonly RotaryEmbedding _rotary;
    private readonly IReadOnlyList<int?> _windows;

    public LlamaModel(LlamaSettings settings)
        : base(nameof(LlamaModel))
    {
        _rotary = new RotaryEmbedding(settings.Rope);
        _windows = settings.Windows;
        _embeddings = new Core.Nn.Embedding(settings.VocabularySize, settings.HiddenSize, settings.Device, settings.DType);
        _layers = new ModuleList<LlamaDecoderLayer>(
            [.. Enumerable.Range(0, settings.LayerCount).Select(layer => new LlamaDecoderLayer(settings, layer))]);
        _norm = new RmsNorm(settings.HiddenSize, settings.NormEpsilon, settings.Device, settings.DType);
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
        long length = input.shape[1];
        Tensor x = _embeddings.call(input);
        RotaryTurn turn = _rotary.Get(cache?.Length ?? 0, length, x.device, x.dtype);
        DecoderPass pass = new(turn, Attention.PaddingMask(attentionMask), cache, length, _windows, x.device);
        DecoderPass kept = Checkpoints is null ? pass : pass.Keep(Checkpoints);
        foreach (LlamaDecoderLayer layer in _layers)
        {
            Tensor next = Checkpoints is null || cache is not null ? layer.call(x, pass) : Checkpoints.Run(layer, x, given => layer.call(given, kept));
            x.Dispose();
            x = next;
        }

        cache?.Advance(length);
        return _norm.call(x).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            _rotary.Dispose();
        }

        base.Dispose(disposing);
    }
}

/// <summary>The Llama family of decoders: Llama, Mistral, Qwen2, Qwen3. Modules and parameters are named as in transformers.</summary>
public sealed class LlamaForCausalLM : CausalLanguageModel
{
    private const string HeadName = "lm_head";

    private static readonly Dictionary<string, string> _tied = new() { [HeadName + ".weight"] = "model.embed_tokens.weight" };

    [ComponentName(Name = "model")]
    private readonly LlamaModel _model;

    [ComponentName(Name = HeadName)]
    private readonly Linear _head;

    private readonly IReadOnlyList<int?> _windows;

    // Longest sequence: max_position_embeddings, times the factor of linear and dynamic rotary scaling; with YaRN, its original length times
    // the factor. Rotary positions are no table: a longer sequence can be computed.
    private LlamaForCausalLM(ModelConfig config, LlamaSettings settings, LlamaFamily family)
        : base(family.Name, config, settings.Rope.LongestSequence, hasPositionTable: false, family.DefaultEosId)
    {
        TiedParameters = settings.IsTied ? _tied : new Dictionary<string, string>();
        _windows = settings.Windows;
        _model = new LlamaModel(settings);
        _head = nn.Linear(settings.HiddenSize, settings.VocabularySize, false, settings.Device, settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public override string? OutputEmbeddingsName => HeadName;

    /// <inheritdoc/>
    public override IReadOnlyDictionary<string, string> TiedParameters { get; }

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } =
    [
        Register(LlamaFamily.Llama),
        Register(LlamaFamily.Mistral),
        Register(LlamaFamily.Qwen2),
        Register(LlamaFamily.Qwen3),
    ];

    /// <inheritdoc/>
    public override Tensor Project(Tensor hiddenStates) => _head.call(hiddenStates);

    private protected override KeyValueCache CreateCache() => new(_windows);

    private protected override Tensor Run(Tensor inputIds, Tensor? attentionMask, KeyValueCache? cache) => _model.call(inputIds, attentionMask, cache);

    private static ModelArchitecture Register(LlamaFamily family) => new(
        family.ModelType,
        family.Name,
        (config, options) => new LlamaForCausalLM(config, new LlamaSettings(config, options, family), family),
        new CheckpointLayout
        {
            BasePrefix = "model.",

            // Frequencies that releases before 4.31 saved; they follow from the configuration.
            SkippedSuffixes = [".rotary_emb.inv_freq"],
        });
}

/// <summary>Which layers see only the last positions, by the rules of each family's configuration class.</summary>
internal static class SlidingWindow
{
    private const int Default = 4096;

    /// <summary>Mistral: all layers or none; a null switches the window off, a missing key does not.</summary>
    public static int?[] OfMistral(ModelConfig config, int layers) => [.. Enumerable.Repeat(Read(config), layers)];

    /// <summary>
    /// Qwen: no layer unless <c>use_sliding_window</c>; then those that <c>layer_types</c> names, or those from <c>max_window_layers</c> on.
    /// </summary>
    public static int?[] OfQwen(ModelConfig config, int layers)
    {
        int? window = config.GetBool("use_sliding_window", false) ? Read(config) : null;
        IReadOnlyList<string> types = config.GetStrings("layer_types");
        if (types.Count == 0)
        {
            int first = config.GetInt("max_window_layers", 28)!.Value;
            return [.. Enumerable.Range(0, layers).Select(layer => layer >= first ? window : null)];
        }

        if (types.Count != layers)
        {
            throw config.Invalid("layer_types", $"names {types.Count} layers, but num_hidden_layers is {layers}");
        }

        return [.. types.Select(type => type switch
        {
            "full_attention" => (int?)null,
            "sliding_attention" => window ?? throw config.Invalid("layer_types", "names sliding_attention, but the sliding window is switched off"),
            _ => throw config.Unsupported("layer_types", $"names '{type}'; only full_attention and sliding_attention are built"),
        })];
    }

    private static int? Read(ModelConfig config) =>
        config.Json.ContainsKey("sliding_window") && !config.Has("sliding_window") ? null : config.GetSize("sliding_window", Default);
}

/// <summary>What all layers share in one forward pass.</summary>
internal sealed class DecoderPass
{
    private readonly Dictionary<int, Tensor?> _masks;

    /// <summary>Makes the masks that the layers need, in the caller's dispose scope.</summary>
    /// <param name="turn">Turns of the positions.</param>
    /// <param name="padding">Boolean [batch, 1, 1, length], or null.</param>
    /// <param name="cache">Keys and values of earlier positions, or null.</param>
    /// <param name="length">Length of the sequences.</param>
    /// <param name="windows">Attention windows of the layers.</param>
    /// <param name="device">Device of the model.</param>
    public DecoderPass(RotaryTurn turn, Tensor? padding, KeyValueCache? cache, long length, IEnumerable<int?> windows, Device device)
    {
        Turn = turn;
        Cache = cache;
        _masks = [];
        foreach (int? window in windows.Distinct())
        {
            _masks.Add(window ?? 0, CausalMask.Create(padding, length, window, device));
        }
    }

    private DecoderPass(RotaryTurn turn, Dictionary<int, Tensor?> masks) => (Turn, _masks) = (turn, masks);

    /// <summary>Turns of the positions.</summary>
    public RotaryTurn Turn { get; }

    /// <summary>Keys and values of earlier positions, or null.</summary>
    public KeyValueCache? Cache { get; }

    /// <summary>Boolean mask of the layers with that window; null where plain causal attention does.</summary>
    public Tensor? Mask(int? window) => _masks[window ?? 0];

    /// <summary>The same without a cache, with tensors that stay until the backward pass is over.</summary>
    public DecoderPass Keep(ActivationCheckpoints checkpoints) => new(
        new RotaryTurn(checkpoints.Keep(Turn.Cosine)!, checkpoints.Keep(Turn.Sine)!),
        _masks.ToDictionary(static entry => entry.Key, entry => checkpoints.Keep(entry.Value)));
}
