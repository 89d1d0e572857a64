using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>The sizes of a DistilBERT encoder, checked.</summary>
internal sealed record DistilBertSettings
{
    /// <summary>Fixed in the architecture.</summary>
    public const double LayerNormEpsilon = 1e-12;

    /// <summary>Reads and checks a configuration.</summary>
    public DistilBertSettings(ModelConfig config, ModelBuildOptions options)
    {
        VocabularySize = config.GetSize("vocab_size");
        HiddenSize = config.GetSize("dim");
        LayerCount = config.GetSize("n_layers");
        HeadCount = config.GetSize("n_heads");
        IntermediateSize = config.GetSize("hidden_dim");
        PositionCount = config.GetSize("max_position_embeddings", 512);
        HiddenDropout = config.GetProbability("dropout", 0.1);
        AttentionDropout = config.GetProbability("attention_dropout", 0.1);
        ClassifierDropout = config.GetProbability("seq_classif_dropout", 0.2);
        Activation = Shared.Activation.Get(config, "activation", "gelu");
        Device = options.Device;
        DType = options.DType;

        if (HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("n_heads", $"is {HeadCount}, which does not divide the dim {HiddenSize}");
        }
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int IntermediateSize { get; }

    public int PositionCount { get; }

    public double HiddenDropout { get; }

    public double AttentionDropout { get; }

    public double ClassifierDropout { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public Device Device { get; }

    public ScalarType DType { get; }
}
