using LoKr.Core.Configuration;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// BERT (Devlin et al., arXiv:1810.04805) with a linear layer on the pooled first token, <c>BertForSequenceClassification</c> in transformers:
/// post-norm, a table of positions.
/// </summary>
public sealed class BertForSequenceClassification : EncoderClassifier
{
    private readonly Linear _pooler;
    private readonly Linear _classifier;

    private BertForSequenceClassification(ModelConfig config, ModelBuildOptions options)
        : base(config, options.Labels, Read(config, options, nameof(BertForSequenceClassification), "bert"))
    {
        _pooler = PlaceLinear("bert.pooler.dense", config.GetSize("hidden_size"));
        _classifier = PlaceLinear("classifier", Labels.Count);
    }

    /// <summary>Names of the first TensorFlow checkpoints, which bert-base-uncased still has.</summary>
    internal static IReadOnlyDictionary<string, string> OldNames { get; } = new Dictionary<string, string> { [".gamma"] = ".weight", [".beta"] = ".bias" };

    internal static ModelArchitecture Registration { get; } = new(
        "bert",
        nameof(BertForSequenceClassification),
        static (config, options) => new BertForSequenceClassification(config, options),
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

    /// <summary>Reads and checks a configuration.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="options">Device and type.</param>
    /// <param name="className">Class name in transformers.</param>
    /// <param name="encoder">Name of the encoder in the module tree.</param>
    internal static EncoderSettings Read(ModelConfig config, ModelBuildOptions options, string className, string encoder)
    {
        CheckKind(config);
        StackSettings stack = ReadStack(config, options, encoder);
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
            ClassifierDropout = config.GetProbability("classifier_dropout", stack.MlpDropout),
        };
    }

    private protected override Tensor Head(Tensor first) => _classifier.call(DropOut(_pooler.call(first).tanh()));

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options, string encoder)
    {
        double dropout = config.GetProbability("hidden_dropout_prob", 0.1);
        return new()
        {
            Name = $"{encoder}.encoder.layer",
            Layer =
            [
                (LayerPart.Query, "attention.self.query"),
                (LayerPart.Key, "attention.self.key"),
                (LayerPart.Value, "attention.self.value"),
                (LayerPart.AttentionOutput, "attention.output.dense"),
                (LayerPart.AttentionSumNorm, "attention.output.LayerNorm"),
                (LayerPart.Up, "intermediate.dense"),
                (LayerPart.Down, "output.dense"),
                (LayerPart.MlpSumNorm, "output.LayerNorm"),
            ],
            LayerCount = config.GetSize("num_hidden_layers"),
            HiddenSize = config.GetSize("hidden_size"),
            IntermediateSize = config.GetSize("intermediate_size"),
            HeadCount = StackSettings.ReadHeads(config, "num_attention_heads", "hidden_size"),
            Activation = Activation.Get(config, "hidden_act", "gelu"),
            NormEpsilon = config.GetDouble("layer_norm_eps", 1e-12),
            AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0.1),
            AttentionOutputDropout = dropout,
            MlpDropout = dropout,
            Options = options,
        };
    }

    private static void CheckKind(ModelConfig config)
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
}

/// <summary>
/// RoBERTa (Liu et al., arXiv:1907.11692), <c>RobertaForSequenceClassification</c> in transformers: BERT's encoder without pooler, positions
/// counted from the padding id on, a head of two layers.
/// </summary>
public sealed class RobertaForSequenceClassification : EncoderClassifier
{
    private readonly Linear _dense;
    private readonly Linear _output;

    private RobertaForSequenceClassification(ModelConfig config, ModelBuildOptions options)
        : base(config, options.Labels, Read(config, options))
    {
        _dense = PlaceLinear("classifier.dense", config.GetSize("hidden_size"));
        _output = PlaceLinear("classifier.out_proj", Labels.Count);
    }

    internal static ModelArchitecture Registration { get; } = new(
        "roberta",
        nameof(RobertaForSequenceClassification),
        static (config, options) => new RobertaForSequenceClassification(config, options),
        new CheckpointLayout
        {
            BasePrefix = "roberta.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.out_proj.weight",
            SkippedPrefixes = ["lm_head.", "qa_outputs.", "roberta.pooler."],
            SkippedSuffixes = [".position_ids", ".token_type_ids"],
            RenamedSuffixes = BertForSequenceClassification.OldNames,
        });

    private protected override Tensor Head(Tensor first) => _output.call(DropOut(_dense.call(DropOut(first)).tanh()));

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        EncoderSettings settings = BertForSequenceClassification.Read(config, options, nameof(RobertaForSequenceClassification), "roberta");
        int padId = config.GetInt("pad_token_id", 1);
        int positions = settings.Embeddings.PositionCount;
        return padId >= 0 && padId + 1 < positions
            ? settings with
            {
                Embeddings = settings.Embeddings with { PositionIds = (ids, _) => PositionIds(ids, padId) },
                MaxSequenceLength = positions - padId - 1,
            }
            : throw config.Invalid("pad_token_id", $"is {padId}, which leaves no room in {positions} positions");
    }

    // Padding keeps the position of the padding id; tokens count on from it, as in fairseq.
    private static Tensor PositionIds(Tensor ids, int padId)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        Tensor tokens = ids.ne(padId).to_type(ScalarType.Int64);
        return ((tokens.cumsum(1) * tokens) + padId).MoveToOuterDisposeScope();
    }
}
