using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>
/// ModernBERT (Warner et al., arXiv:2412.13663), <c>ModernBertForSequenceClassification</c> in transformers: pre-norm without biases, gated
/// feed-forward blocks, rotary positions, and mostly layers that see only the positions nearby, which have rotations of their own.
/// </summary>
internal static class ModernBert
{
    private const string ClassName = "ModernBertForSequenceClassification";
    private const string PatternKey = "global_attn_every_n_layers";
    private const string GlobalThetaKey = "global_rope_theta";
    private const string LocalThetaKey = "local_rope_theta";

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = EncoderFamily.Register(
        "modernbert",
        ClassName,
        Read,
        new CheckpointLayout
        {
            BasePrefix = "model.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",

            // Part of a masked language model too, which the published checkpoints are.
            OptionalPrefixes = ["head."],
            SkippedPrefixes = ["decoder."],
        });

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        StackSettings stack = ReadStack(config, options);
        HeadSettings head = ReadHead(config);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts = [(EmbeddingPart.Tokens, "model.embeddings.tok_embeddings"), (EmbeddingPart.Norm, "model.embeddings.norm")],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = stack.HiddenSize,
                NormEpsilon = stack.NormEpsilon,
                HasNormBias = stack.HasNormBias,
                Dropout = config.GetProbability("embedding_dropout", 0),
                Options = options,
            },
            Stack = stack,
            NormName = "model.final_norm",
            MaxSequenceLength = stack.Ropes.OfType<RopeSettings>().Min(static rope => rope.LongestSequence),
            Head = head,
            TokenHead = head,
            WriteSpellings = json =>
            {
                ConfigSpellings.WriteLayerTypes(json, [.. stack.Windows.Select(static window => window is not null)], PatternKey, endsGroup: false);
                ConfigSpellings.WriteLayerRopes(json, stack, GlobalThetaKey, LocalThetaKey, hasScaling: false);
            },
        };
    }

    // The same for a text and for each token, but for the pooling.
    private static HeadSettings ReadHead(ModelConfig config) => new()
    {
        Pooling = config.GetString("classifier_pooling", "cls") switch
        {
            "cls" => TextPooling.FirstToken,
            "mean" => TextPooling.Mean,
            string other => throw config.Unsupported("classifier_pooling", $"is '{other}'; cls and mean are supported"),
        },
        DenseName = "head.dense",
        HasDenseBias = config.GetBool("classifier_bias", false),
        Activation = Activation.Get(config, "classifier_activation", "gelu"),
        NormName = "head.norm",
        Dropout = config.GetProbability("classifier_dropout", 0),
    };

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options)
    {
        int heads = StackSettings.ReadHeads(config, "num_attention_heads", "hidden_size");
        (int hidden, int layers, int pattern) = (config.GetSize("hidden_size"), config.GetSize("num_hidden_layers"), config.GetSize(PatternKey, 3));
        bool[] sliding = LayerTypes.AreSliding(config, layers, layer => layer % pattern != 0);
        int positions = config.GetSize("max_position_embeddings", 8192);
        RopeSettings full = new(config, hidden / heads, positions, new() { LayerType = LayerTypes.Full, ThetaKey = GlobalThetaKey, DefaultTheta = 160_000, IsScaled = false });
        RopeSettings local = new(config, hidden / heads, positions, new() { LayerType = LayerTypes.Sliding, ThetaKey = LocalThetaKey, IsScaled = false });

        // Half of local_attention on each side, both ends and the position itself included.
        int window = (2 * (config.GetSize("local_attention", 128) / 2)) + 1;
        double dropout = config.GetProbability("attention_dropout", 0);
        bool hasAttentionBias = config.GetBool("attention_bias", false);
        return new()
        {
            Name = "model.layers",
            Layer =
            [
                (LayerPart.AttentionInputNorm, "attn_norm"),
                (LayerPart.QueryKeyValue, "attn.Wqkv"),
                (LayerPart.AttentionOutput, "attn.Wo"),
                (LayerPart.MlpInputNorm, "mlp_norm"),
                (LayerPart.GateUp, "mlp.Wi"),
                (LayerPart.Down, "mlp.Wo"),
            ],

            // The embeddings have just been normalized.
            HasPart = static (layer, part) => layer > 0 || part != LayerPart.AttentionInputNorm,
            LayerCount = layers,
            HiddenSize = hidden,
            IntermediateSize = config.GetSize("intermediate_size"),
            HeadCount = heads,
            Windows = [.. sliding.Select(isSliding => isSliding ? window : (int?)null)],
            Ropes = [.. sliding.Select(isSliding => isSliding ? local : full)],
            Activation = Activation.Get(config, "hidden_activation", "gelu"),
            NormEpsilon = config.GetDouble("norm_eps", 1e-5),
            HasNormBias = config.GetBool("norm_bias", false),
            HasInputBias = hasAttentionBias,
            HasOutputBias = hasAttentionBias,
            HasMlpBias = config.GetBool("mlp_bias", false),
            AttentionDropout = dropout,
            AttentionOutputDropout = dropout,
            MlpInnerDropout = config.GetProbability("mlp_dropout", 0),
            Options = options,
        };
    }
}
