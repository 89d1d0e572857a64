using LoKr.Core.Configuration;
namespace LoKr.Models.Families;

/// <summary>
/// The Llama family of decoders (Touvron et al., arXiv:2302.13971): pre-norm with root mean square norms, rotary positions, grouped-query
/// attention, a gated feed-forward block. A member is data: everything else is the same in Llama, Mistral, Qwen2 and Qwen3.
/// </summary>
internal sealed record LlamaFamily
{
    /// <summary>The members of the family.</summary>
    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = [.. new LlamaFamily[]
    {
        new()
        {
            ModelType = "llama",
            ClassName = "LlamaForCausalLM",
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
            DefaultPositions = 131072,
            DefaultKeyHeads = 8,
            DefaultEosId = 2,
            Windows = SlidingWindow.OfMistral,
        },
        new()
        {
            ModelType = "qwen2",
            ClassName = "Qwen2ForCausalLM",
            DefaultPositions = 32768,
            DefaultKeyHeads = 32,
            InputBias = static _ => true,
            Windows = SlidingWindow.OfQwen,
        },
        new()
        {
            ModelType = "qwen3",
            ClassName = "Qwen3ForCausalLM",
            DefaultPositions = 32768,
            DefaultKeyHeads = 32,
            DefaultHeadWidth = 128,
            InputBias = static config => config.GetBool("attention_bias", false),
            OutputBias = static config => config.GetBool("attention_bias", false),
            HasHeadNorms = true,
            Windows = SlidingWindow.OfQwen,
        },
    }.Select(static member => member.Register())];

    /// <summary>The <c>model_type</c>.</summary>
    public required string ModelType { get; init; }

    /// <summary>Class name in transformers.</summary>
    public required string ClassName { get; init; }

    /// <summary>Longest sequence where the configuration leaves it out.</summary>
    public required int DefaultPositions { get; init; }

    /// <summary>Key and value heads where the configuration leaves the key out; null for as many as query heads, which an explicit null means too.</summary>
    public int? DefaultKeyHeads { get; init; }

    /// <summary>Width of a head where the configuration leaves it out; null for hidden size / heads.</summary>
    public int? DefaultHeadWidth { get; init; }

    /// <summary>Id of the end of text where the configuration leaves the key out.</summary>
    public int? DefaultEosId { get; init; }

    /// <summary>Whether query, key and value projections have a bias.</summary>
    public Func<ModelConfig, bool> InputBias { get; init; } = static _ => false;

    /// <summary>Whether the output projection of the attention has a bias.</summary>
    public Func<ModelConfig, bool> OutputBias { get; init; } = static _ => false;

    /// <summary>Whether the feed-forward layers have biases.</summary>
    public Func<ModelConfig, bool> MlpBias { get; init; } = static _ => false;

    /// <summary>Whether queries and keys are normalized per head.</summary>
    public bool HasHeadNorms { get; init; }

    /// <summary>Attention window of each of so many layers; null for all positions.</summary>
    public Func<ModelConfig, int, int?[]> Windows { get; init; } = static (_, layers) => new int?[layers];

    private ModelArchitecture Register() => new(
        ModelType,
        ClassName,
        (config, options) => new CausalLanguageModel(config, Read(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "model.",

            // Frequencies that releases before 4.31 saved; they follow from the configuration.
            SkippedSuffixes = [".rotary_emb.inv_freq"],
        });

    private DecoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        StackSettings stack = ReadStack(config, options);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts = [(EmbeddingPart.Tokens, "model.embed_tokens")],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = stack.HiddenSize,
                Options = options,
            },
            Stack = stack,
            NormName = "model.norm",
            IsTied = config.GetBool("tie_word_embeddings", false),
            Rope = new RopeSettings(config, stack.HeadWidth, config.GetSize("max_position_embeddings", DefaultPositions)),
            DefaultEosId = DefaultEosId,
        };
    }

    private StackSettings ReadStack(ModelConfig config, ModelBuildOptions options)
    {
        (int hidden, int heads, int layers) = (config.GetSize("hidden_size"), config.GetSize("num_attention_heads"), config.GetSize("num_hidden_layers"));

        // An explicit null means as many as query heads, which is not what the missing key means in every family.
        int keyHeads = config.GetSize("num_key_value_heads", config.Contains("num_key_value_heads") ? heads : DefaultKeyHeads ?? heads);
        int width = config.GetSize("head_dim", config.Contains("head_dim") ? hidden / heads : DefaultHeadWidth ?? (hidden / heads));
        CheckHeads(config, hidden, heads, keyHeads, width);
        return new()
        {
            Name = "model.layers",
            Layer =
            [
                (LayerPart.Query, "self_attn.q_proj"),
                (LayerPart.Key, "self_attn.k_proj"),
                (LayerPart.Value, "self_attn.v_proj"),
                (LayerPart.AttentionOutput, "self_attn.o_proj"),
                .. HasHeadNorms ? new[] { (LayerPart.QueryNorm, "self_attn.q_norm"), (LayerPart.KeyNorm, "self_attn.k_norm") } : [],
                (LayerPart.Gate, "mlp.gate_proj"),
                (LayerPart.Up, "mlp.up_proj"),
                (LayerPart.Down, "mlp.down_proj"),
                (LayerPart.AttentionInputNorm, "input_layernorm"),
                (LayerPart.MlpInputNorm, "post_attention_layernorm"),
            ],
            LayerCount = layers,
            HiddenSize = hidden,
            IntermediateSize = config.GetSize("intermediate_size"),
            HeadCount = heads,
            KeyHeadCount = keyHeads,
            HeadWidth = width,
            Windows = Windows(config, layers),
            Activation = Activation.Get(config, "hidden_act", "silu"),
            Norm = NormKind.RootMeanSquare,
            NormEpsilon = config.GetDouble("rms_norm_eps", 1e-6),
            HasInputBias = InputBias(config),
            HasOutputBias = OutputBias(config),
            HasMlpBias = MlpBias(config),
            AttentionDropout = config.GetProbability("attention_dropout", 0),
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
