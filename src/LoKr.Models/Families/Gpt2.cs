using LoKr.Core.Configuration;
using LoKr.Core.Nn;

namespace LoKr.Models.Families;

/// <summary>
/// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), <c>GPT2LMHeadModel</c> in transformers: pre-norm,
/// a table of positions, one projection to queries, keys and values, and <see cref="Conv1D"/> in the place of linear layers.
/// </summary>
internal static class Gpt2
{
    private const string ClassName = "GPT2LMHeadModel";

    private static readonly CheckpointLayout s_layout = new()
    {
        BasePrefix = "transformer.",

        // Causal masks, which the published checkpoints hold beside the weights.
        SkippedSuffixes = [".attn.bias", ".attn.masked_bias"],
    };

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } =
        [.. DecoderFamily.Register("gpt2", new(ClassName, "GPT2ForSequenceClassification", "GPT2ForTokenClassification"), Read, s_layout, tokenHead: "classifier")];

    private static DecoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        if (config.GetBool("add_cross_attention", false))
        {
            throw config.Unsupported("add_cross_attention", "asks for attention to an encoder, which is not supported");
        }

        StackSettings stack = ReadStack(config, options);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts = [(EmbeddingPart.Tokens, "transformer.wte"), (EmbeddingPart.Positions, "transformer.wpe")],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = stack.HiddenSize,
                PositionCount = config.GetSize("n_positions", 1024),
                Dropout = config.GetProbability("embd_pdrop", 0.1),
                Options = options,
            },
            Stack = stack,
            NormName = "transformer.ln_f",
            IsTied = config.GetBool("tie_word_embeddings", true),
            DefaultEosId = 50256,
        };
    }

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options)
    {
        int heads = StackSettings.ReadHeads(config, "n_head", "n_embd");
        int hidden = config.GetSize("n_embd");

        // Attention always divides by the root of a head's width: what differs from that is a factor on the queries.
        double scale = config.GetBool("scale_attn_weights", true) ? 1 : Math.Sqrt(hidden / heads);
        bool byLayer = config.GetBool("scale_attn_by_inverse_layer_idx", false);

        // reorder_and_upcast_attn only says where scores are rounded in half precision; torch's attention keeps them in float32 anyway.
        return new()
        {
            Name = "transformer.h",
            Layer =
            [
                (LayerPart.AttentionInputNorm, "ln_1"),
                (LayerPart.QueryKeyValue, "attn.c_attn"),
                (LayerPart.AttentionOutput, "attn.c_proj"),
                (LayerPart.MlpInputNorm, "ln_2"),
                (LayerPart.Up, "mlp.c_fc"),
                (LayerPart.Down, "mlp.c_proj"),
            ],
            LayerCount = config.GetSize("n_layer"),
            HiddenSize = hidden,
            IntermediateSize = config.GetSize("n_inner", 4 * hidden),
            HeadCount = heads,
            HasTransposedWeights = true,
            QueryScale = byLayer ? layer => scale / (layer + 1) : _ => scale,
            Activation = Activation.Get(config, "activation_function", "gelu_new"),
            NormEpsilon = config.GetDouble("layer_norm_epsilon", 1e-5),
            AttentionDropout = config.GetProbability("attn_pdrop", 0.1),
            AttentionOutputDropout = config.GetProbability("resid_pdrop", 0.1),
            MlpDropout = config.GetProbability("resid_pdrop", 0.1),
            Options = options,
        };
    }
}
