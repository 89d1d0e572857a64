using static TorchSharp.torch;

namespace LoKr.Models.ClipText;

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
        Activation = Shared.Activation.Get(config, "hidden_act", "quick_gelu");
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
