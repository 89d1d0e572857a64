using LoKr.Core.Configuration;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// BERT (Devlin et al., arXiv:1810.04805) with a linear layer on the pooled first token, <c>BertForSequenceClassification</c> in transformers:
/// post-norm, a table of positions.
/// </summary>
internal static class Bert
{
    private const string ClassName = "BertForSequenceClassification";

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = EncoderFamily.Register(
        "bert",
        ClassName,
        static (config, options) => Read(config, options, ClassName, "bert", Head),
        new CheckpointLayout
        {
            BasePrefix = "bert.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",
            OptionalPrefixes = ["bert.pooler."],
            SkippedPrefixes = ["cls.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],
            RenamedSuffixes = OldNames,
        });

    /// <summary>Names of the first TensorFlow checkpoints, which bert-base-uncased still has.</summary>
    internal static IReadOnlyDictionary<string, string> OldNames => new Dictionary<string, string> { [".gamma"] = ".weight", [".beta"] = ".bias" };

    /// <summary>Reads and checks a configuration.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="options">Device and type.</param>
    /// <param name="className">Class name in transformers.</param>
    /// <param name="encoder">Name of the encoder in the module tree.</param>
    /// <param name="head">The classification head, from the dropout before its last layer.</param>
    internal static EncoderSettings Read(ModelConfig config, ModelBuildOptions options, string className, string encoder, Func<double, HeadSettings> head)
    {
        CheckKind(config);
        StackSettings stack = ReadStack(config, options, encoder);
        double dropout = config.GetProbability("classifier_dropout", stack.MlpDropout);
        int positions = config.GetSize("max_position_embeddings", 512);
        return new()
        {
            ClassName = className,
            Embeddings = new()
            {
                Parts =
                [
                    (EmbeddingPart.Tokens, $"{encoder}.embeddings.word_embeddings"),
                    (EmbeddingPart.Types, $"{encoder}.embeddings.token_type_embeddings"),
                    (EmbeddingPart.Norm, $"{encoder}.embeddings.LayerNorm"),
                    (EmbeddingPart.Positions, $"{encoder}.embeddings.position_embeddings"),
                ],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = stack.HiddenSize,
                PositionCount = positions,
                TypeCount = config.GetSize("type_vocab_size", 2),
                NormEpsilon = stack.NormEpsilon,
                Dropout = stack.MlpDropout,
                Options = options,
            },
            Stack = stack,
            MaxSequenceLength = positions,
            Head = head(dropout),
            TokenHead = new() { Dropout = dropout },
        };
    }

    /// <summary>Refuses decoders and kinds of positions that are not built.</summary>
    internal static void CheckKind(ModelConfig config)
    {
        if (config.GetBool("is_decoder", false) || config.GetBool("add_cross_attention", false))
        {
            throw config.Unsupported("is_decoder", "makes the encoder a decoder, which is not supported");
        }

        if (config.GetString("position_embedding_type", "absolute") is not "absolute" and string other)
        {
            throw config.Unsupported("position_embedding_type", $"is '{other}'; only 'absolute' is supported");
        }
    }

    private static HeadSettings Head(double dropout) => new() { DenseName = "bert.pooler.dense", Activation = tanh, Dropout = dropout };

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options, string encoder)
    {
        double dropout = config.GetProbability("hidden_dropout_prob", 0.1);
        return StackSettings.Read(config, options, $"{encoder}.encoder.layer",
        [
            (LayerPart.Query, "attention.self.query"),
            (LayerPart.Key, "attention.self.key"),
            (LayerPart.Value, "attention.self.value"),
            (LayerPart.AttentionOutput, "attention.output.dense"),
            (LayerPart.AttentionSumNorm, "attention.output.LayerNorm"),
            (LayerPart.Up, "intermediate.dense"),
            (LayerPart.Down, "output.dense"),
            (LayerPart.MlpSumNorm, "output.LayerNorm"),
        ]) with
        {
            AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0.1),
            AttentionOutputDropout = dropout,
            MlpDropout = dropout,
        };
    }
}
