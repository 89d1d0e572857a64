using System.Text.Json.Nodes;
using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>
/// The Llama family of decoders (Touvron et al., arXiv:2302.13971): pre-norm with root mean square norms, rotary positions, grouped-query
/// attention, a gated feed-forward block. A member is data: everything else is the same in Llama, Mistral, Qwen2 and Qwen3, and in the members
/// that have a file of their own, because more is different: Gemma 3, Granite, OLMo, Phi-3, SmolLM3.
/// </summary>
internal sealed record LlamaFamily
{
    private const string BasePrefix = "model.";

    /// <summary>The members that differ in a few values.</summary>
    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = [.. new LlamaFamily[]
    {
        new()
        {
            ModelType = "llama",
            ClassName = "LlamaForCausalLM",
            ClassifierName = "LlamaForSequenceClassification",
            TokenClassifierName = "LlamaForTokenClassification",
            DefaultPositions = 2048,
            DefaultEosId = 2,
            InputBias = static config => config.GetBool("attention_bias", false),
            OutputBias = static config => config.GetBool("attention_bias", false),
            MlpBias = static config => config.GetBool("mlp_bias", false),
        },
        new()
        {
            ModelType = "mistral",
            ClassName = "MistralForCausalLM",
            ClassifierName = "MistralForSequenceClassification",
            TokenClassifierName = "MistralForTokenClassification",
            DefaultPositions = 131072,
            DefaultKeyHeads = 8,
            DefaultEosId = 2,
            Windows = SlidingWindow.OfMistral,
        },
        new()
        {
            ModelType = "qwen2",
            ClassName = "Qwen2ForCausalLM",
            ClassifierName = "Qwen2ForSequenceClassification",
            TokenClassifierName = "Qwen2ForTokenClassification",
            DefaultPositions = 32768,
            DefaultKeyHeads = 32,
            InputBias = static _ => true,
            Windows = SlidingWindow.OfQwen,
        },
        new()
        {
            ModelType = "qwen3",
            ClassName = "Qwen3ForCausalLM",
            ClassifierName = "Qwen3ForSequenceClassification",
            TokenClassifierName = "Qwen3ForTokenClassification",
            DefaultPositions = 32768,
            DefaultKeyHeads = 32,
            DefaultHeadWidth = 128,
            InputBias = static config => config.GetBool("attention_bias", false),
            OutputBias = static config => config.GetBool("attention_bias", false),
            Layer = [.. Attention, .. HeadNorms, .. Mlp, .. InputNorms],
            Windows = SlidingWindow.OfQwen,
        },
    }.SelectMany(static member => member.Register())];

    /// <summary>Names of the attention's projections.</summary>
    internal static IReadOnlyList<(LayerPart Part, string Name)> Attention =>
    [
        (LayerPart.Query, "self_attn.q_proj"), (LayerPart.Key, "self_attn.k_proj"), (LayerPart.Value, "self_attn.v_proj"),
        (LayerPart.AttentionOutput, "self_attn.o_proj"),
    ];

    /// <summary>Names of the norms of queries and keys.</summary>
    internal static IReadOnlyList<(LayerPart Part, string Name)> HeadNorms => [(LayerPart.QueryNorm, "self_attn.q_norm"), (LayerPart.KeyNorm, "self_attn.k_norm")];

    /// <summary>Names of the feed-forward block.</summary>
    internal static IReadOnlyList<(LayerPart Part, string Name)> Mlp => [(LayerPart.Gate, "mlp.gate_proj"), (LayerPart.Up, "mlp.up_proj"), (LayerPart.Down, "mlp.down_proj")];

    /// <summary>Names of the norms before both blocks.</summary>
    internal static IReadOnlyList<(LayerPart Part, string Name)> InputNorms =>
        [(LayerPart.AttentionInputNorm, "input_layernorm"), (LayerPart.MlpInputNorm, "post_attention_layernorm")];

    /// <summary>The <c>model_type</c>.</summary>
    public required string ModelType { get; init; }

    /// <summary>Class name of the language model in transformers.</summary>
    public required string ClassName { get; init; }

    /// <summary>Class name of the classifier in transformers; null where it has none.</summary>
    public string? ClassifierName { get; init; }

    /// <summary>Class name of the token classifier in transformers; null where it has none.</summary>
    public string? TokenClassifierName { get; init; }

    /// <summary>Name of the token classifier's head in earlier releases of transformers; null where it was the same.</summary>
    public string? OldTokenHead { get; init; }

    /// <summary>Longest sequence where the configuration leaves it out.</summary>
    public required int DefaultPositions { get; init; }

    /// <summary>Key and value heads where the configuration leaves the key out; null for as many as query heads, which an explicit null means too.</summary>
    public int? DefaultKeyHeads { get; init; }

    /// <summary>Width of a head where the configuration leaves it out; null for hidden size / heads.</summary>
    public int? DefaultHeadWidth { get; init; }

    /// <summary>Id of the end of text where the configuration leaves the key out.</summary>
    public int? DefaultEosId { get; init; }

    /// <summary>Whether output and input embeddings are one weight where the configuration leaves it out.</summary>
    public bool IsTiedByDefault { get; init; }

    /// <summary>The modules of a layer in the checkpoint's order.</summary>
    public IReadOnlyList<(LayerPart Part, string Name)> Layer { get; init; } = [.. Attention, .. Mlp, .. InputNorms];

    /// <summary>Key of the activation.</summary>
    public string ActivationKey { get; init; } = "hidden_act";

    /// <summary>Activation where the configuration names none.</summary>
    public string DefaultActivation { get; init; } = "silu";

    /// <summary>Kind of the norms.</summary>
    public NormKind Norm { get; init; } = NormKind.RootMeanSquare;

    /// <summary>Epsilon of the norms where the configuration leaves it out.</summary>
    public double DefaultNormEpsilon { get; init; } = 1e-6;

    /// <summary>Whether queries and keys are normalized over all heads together.</summary>
    public bool NormsAllHeads { get; init; }

    /// <summary>Whether query, key and value projections have a bias.</summary>
    public Func<ModelConfig, bool> InputBias { get; init; } = static _ => false;

    /// <summary>Whether the output projection of the attention has a bias.</summary>
    public Func<ModelConfig, bool> OutputBias { get; init; } = static _ => false;

    /// <summary>Whether the feed-forward layers have biases.</summary>
    public Func<ModelConfig, bool> MlpBias { get; init; } = static _ => false;

    /// <summary>Dropout of the output of both blocks.</summary>
    public Func<ModelConfig, double> BlockDropout { get; init; } = static _ => 0;

    /// <summary>Factor on the vectors of tokens.</summary>
    public Func<ModelConfig, double> EmbeddingScale { get; init; } = static _ => 1;

    /// <summary>Factor on the scores of queries and keys; null for one over the root of a head's width.</summary>
    public Func<ModelConfig, double>? AttentionScale { get; init; }

    /// <summary>Factor on the output of a block.</summary>
    public Func<ModelConfig, double> ResidualScale { get; init; } = static _ => 1;

    /// <summary>Factor on the logits.</summary>
    public Func<ModelConfig, double> LogitScale { get; init; } = static _ => 1;

    /// <summary>Bound of the logits, or null.</summary>
    public Func<ModelConfig, double?> LogitCap { get; init; } = static _ => null;

    /// <summary>Attention window of each of so many layers; null for all positions.</summary>
    public Func<ModelConfig, int, int?[]> Windows { get; init; } = static (_, layers) => new int?[layers];

    /// <summary>Rotary positions of each layer, from the configuration, the width of a head, the longest sequence and the number of layers.</summary>
    public Func<ModelConfig, int, int, int, IReadOnlyList<RopeSettings?>> Ropes { get; init; } =
        static (config, width, positions, layers) => [.. Enumerable.Repeat(new RopeSettings(config, width, positions), layers)];

    /// <summary>Positions up to which a cache holds while a text grows; null for all.</summary>
    public Func<RopeSettings, int?> CacheLimit { get; init; } = static _ => null;

    /// <summary>Completes a configuration by the keys of other releases, from the rotary positions and the windows of its layers.</summary>
    public Action<JsonObject, StackSettings> WriteSpellings { get; init; } =
        static (config, stack) => ConfigSpellings.WriteRope(config, stack.Ropes.OfType<RopeSettings>().First());

    /// <summary>Refuses what is not built.</summary>
    public Action<ModelConfig> Check { get; init; } = static _ => { };

    /// <summary>The architectures: the language model and, where there are any, the classifiers of texts and of tokens.</summary>
    public IReadOnlyList<ModelArchitecture> Register()
    {
        CheckpointLayout layout = new()
        {
            BasePrefix = BasePrefix,

            // Frequencies that releases before 4.31 saved; they follow from the configuration.
            SkippedSuffixes = [".rotary_emb.inv_freq"],
        };
        return [.. DecoderFamily.Register(ModelType, new(ClassName, ClassifierName, TokenClassifierName), Read, layout, oldTokenHead: OldTokenHead)];
    }

    private DecoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        Check(config);
        StackSettings stack = ReadStack(config, options);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts = [(EmbeddingPart.Tokens, BasePrefix + "embed_tokens")],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = stack.HiddenSize,
                Scale = EmbeddingScale(config),
                Options = options,
            },
            Stack = stack,
            NormName = BasePrefix + "norm",
            IsTied = config.GetBool("tie_word_embeddings", IsTiedByDefault),
            LogitScale = LogitScale(config),
            LogitCap = LogitCap(config),
            CacheLimit = CacheLimit(stack.Ropes.OfType<RopeSettings>().First()),
            DefaultEosId = DefaultEosId,
            WriteSpellings = json => WriteSpellings(json, stack),
        };
    }

    private StackSettings ReadStack(ModelConfig config, ModelBuildOptions options)
    {
        (int hidden, int heads, int layers) = (config.GetSize("hidden_size"), config.GetSize("num_attention_heads"), config.GetSize("num_hidden_layers"));

        // An explicit null means as many as query heads, which is not what the missing key means in every family.
        int keyHeads = config.GetSize("num_key_value_heads", config.Contains("num_key_value_heads") ? heads : DefaultKeyHeads ?? heads);
        int width = config.GetSize("head_dim", config.Contains("head_dim") ? hidden / heads : DefaultHeadWidth ?? (hidden / heads));
        CheckHeads(config, hidden, heads, keyHeads, width);
        double? scale = AttentionScale?.Invoke(config);
        return new()
        {
            Name = BasePrefix + "layers",
            Layer = Layer,
            LayerCount = layers,
            HiddenSize = hidden,
            IntermediateSize = config.GetSize("intermediate_size"),
            HeadCount = heads,
            KeyHeadCount = keyHeads,
            HeadWidth = width,
            Windows = Windows(config, layers),
            Ropes = Ropes(config, width, config.GetSize("max_position_embeddings", DefaultPositions), layers),
            Activation = Activation.Get(config, ActivationKey, DefaultActivation),
            Norm = Norm,
            NormEpsilon = config.GetDouble("rms_norm_eps", DefaultNormEpsilon),
            NormsAllHeads = NormsAllHeads,
            HasInputBias = InputBias(config),
            HasOutputBias = OutputBias(config),
            HasMlpBias = MlpBias(config),

            // Attention always divides by the root of a head's width: what differs from that is a factor on the queries.
            QueryScale = scale is double factor ? _ => factor * Math.Sqrt(width) : static _ => 1,
            ResidualScale = ResidualScale(config),
            AttentionDropout = config.GetProbability("attention_dropout", 0),
            AttentionOutputDropout = BlockDropout(config),
            MlpDropout = BlockDropout(config),
            Options = options,
        };
    }

    private static void CheckHeads(ModelConfig config, int hidden, int heads, int keyHeads, int width)
    {
        if (width == 0 || width % 2 != 0)
        {
            throw config.Invalid("head_dim", $"is {width}; the channels of a head are rotated in pairs");
        }

        if (!config.Has("head_dim") && hidden % heads != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {heads}, which does not divide the hidden_size {hidden}");
        }

        if (heads % keyHeads != 0)
        {
            throw config.Invalid("num_key_value_heads", $"is {keyHeads}, which does not divide the {heads} attention heads");
        }
    }
}
