using LoKr.Core.Configuration;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// ALBERT (Lan et al., arXiv:1909.11942), <c>AlbertForSequenceClassification</c> in transformers: BERT with narrow embeddings and few layers that
/// run several times, so that an adapter of one does too.
/// </summary>
internal static class Albert
{
    private const string ClassName = "AlbertForSequenceClassification";

    // Layers of a group, each of which has weights of its own.
    private const int MostLayers = 2048;

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = EncoderFamily.Register(
        "albert",
        ClassName,
        Read,
        new CheckpointLayout
        {
            BasePrefix = "albert.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",
            OptionalPrefixes = ["albert.pooler."],
            SkippedPrefixes = ["predictions.", "sop_classifier.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],
        });

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        Bert.CheckKind(config);
        StackSettings stack = ReadStack(config, options);
        int positions = config.GetSize("max_position_embeddings", 512);
        double dropout = config.GetProbability("classifier_dropout_prob", 0.1);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts =
                [
                    (EmbeddingPart.Tokens, "albert.embeddings.word_embeddings"),
                    (EmbeddingPart.Positions, "albert.embeddings.position_embeddings"),
                    (EmbeddingPart.Types, "albert.embeddings.token_type_embeddings"),
                    (EmbeddingPart.Norm, "albert.embeddings.LayerNorm"),
                    (EmbeddingPart.Projection, "albert.encoder.embedding_hidden_mapping_in"),
                ],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = config.GetSize("embedding_size", 128),
                ProjectedSize = stack.HiddenSize,
                PositionCount = positions,
                TypeCount = config.GetSize("type_vocab_size", 2),
                NormEpsilon = stack.NormEpsilon,
                Dropout = stack.AttentionOutputDropout,
                Options = options,
            },
            Stack = stack,
            MaxSequenceLength = positions,
            Head = new()
            {
                DenseName = "albert.pooler",
                Activation = tanh,
                Dropout = dropout,
            },
            TokenHead = new() { Dropout = dropout },
        };
    }

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options)
    {
        (int runs, int groups, int inner) = (config.GetSize("num_hidden_layers"), config.GetSize("num_hidden_groups", 1), config.GetSize("inner_group_num", 1));
        if (groups > runs || (long)runs * inner > MostLayers)
        {
            throw config.Invalid(groups > runs ? "num_hidden_groups" : "inner_group_num", $"does not fit {runs} layers: there are {groups} groups of {inner}");
        }

        // Group g has the runs from g·runs/groups on.
        double share = (double)runs / groups;
        return StackSettings.Read(config, options, "albert.encoder.albert_layer_groups",
        [
            (LayerPart.MlpSumNorm, "full_layer_layer_norm"),
            (LayerPart.Query, "attention.query"),
            (LayerPart.Key, "attention.key"),
            (LayerPart.Value, "attention.value"),
            (LayerPart.AttentionOutput, "attention.dense"),
            (LayerPart.AttentionSumNorm, "attention.LayerNorm"),
            (LayerPart.Up, "ffn"),
            (LayerPart.Down, "ffn_output"),
        ], activation: "gelu_new") with
        {
            NameOf = index => $"{index / inner}.albert_layers.{index % inner}",
            LayerCount = groups * inner,
            Order = [.. Enumerable.Range(0, runs).SelectMany(run => Enumerable.Range((int)(run / share) * inner, inner))],
            AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0),
            AttentionOutputDropout = config.GetProbability("hidden_dropout_prob", 0),
        };
    }
}
