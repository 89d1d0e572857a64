using static TorchSharp.torch;

namespace LoKr.Models.Gpt2;

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
        Activation = Shared.Activation.Get(config, "activation_function", "gelu_new");
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
