using LoKr.Models.Shared;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>The sizes of a BERT or RoBERTa encoder, checked.</summary>
internal sealed record BertSettings
{
    /// <summary>Reads and checks a configuration.</summary>
    public BertSettings(ModelConfig config, ModelBuildOptions options)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("hidden_size");
        LayerCount = config.GetSize("num_hidden_layers");
        HeadCount = config.GetSize("num_attention_heads");
        IntermediateSize = config.GetSize("intermediate_size");
        PositionCount = config.GetSize("max_position_embeddings", 512);
        TokenTypeCount = config.GetSize("type_vocab_size", 2);
        LayerNormEpsilon = config.GetDouble("layer_norm_eps", 1e-12);
        HiddenDropout = config.GetProbability("hidden_dropout_prob", 0.1);
        AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0.1);
        ClassifierDropout = config.GetProbability("classifier_dropout", HiddenDropout);
        Activation = Shared.Activation.Get(config, "hidden_act", "gelu");
        Device = options.Device;
        DType = options.DType;

        if (HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {HeadCount}, which does not divide the hidden_size {HiddenSize}");
        }

        if (config.GetBool("is_decoder", false) || config.GetBool("add_cross_attention", false))
        {
            throw config.Unsupported("is_decoder", "makes the encoder a decoder, which is not built");
        }

        if (config.GetString("position_embedding_type", "absolute") is not "absolute" and string other)
        {
            throw config.Unsupported("position_embedding_type", $"is '{other}'; only 'absolute' is built");
        }
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int IntermediateSize { get; }

    public int PositionCount { get; }

    public int TokenTypeCount { get; }

    public double LayerNormEpsilon { get; }

    public double HiddenDropout { get; }

    public double AttentionDropout { get; }

    public double ClassifierDropout { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public Device Device { get; }

    public ScalarType DType { get; }
}
