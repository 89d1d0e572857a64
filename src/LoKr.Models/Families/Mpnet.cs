using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// MPNet (Song et al., arXiv:2004.09297), <c>MPNetForSequenceClassification</c> in transformers: RoBERTa without token types and with one table of
/// scores by distance for all layers.
/// </summary>
internal static class Mpnet
{
    private const string ClassName = "MPNetForSequenceClassification";

    // Fixed in the architecture, whatever the configuration says.
    private const int PadId = 1;
    private const int Buckets = 32;

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = EncoderFamily.Register(
        "mpnet",
        ClassName,
        Read,
        new CheckpointLayout
        {
            BasePrefix = "mpnet.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.out_proj.weight",
            SkippedPrefixes = ["lm_head.", "qa_outputs.", "mpnet.pooler."],
            SkippedSuffixes = [".position_ids"],
        });

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        if (config.GetSize("relative_attention_num_buckets", Buckets) is not Buckets and int other)
        {
            throw config.Unsupported("relative_attention_num_buckets", $"is {other}; distances have {Buckets} buckets");
        }

        int positions = config.GetSize("max_position_embeddings", 512);
        if (positions <= PadId + 1)
        {
            throw config.Invalid("max_position_embeddings", $"is {positions}, of which {PadId + 1} are not for tokens");
        }

        StackSettings stack = ReadStack(config, options);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts =
                [
                    (EmbeddingPart.Tokens, "mpnet.embeddings.word_embeddings"),
                    (EmbeddingPart.Positions, "mpnet.embeddings.position_embeddings"),
                    (EmbeddingPart.Norm, "mpnet.embeddings.LayerNorm"),
                ],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = stack.HiddenSize,
                PositionCount = positions,
                PositionIds = static (ids, _) => Roberta.PositionIds(ids, PadId),
                NormEpsilon = stack.NormEpsilon,
                Dropout = stack.MlpDropout,
                Options = options,
            },
            Stack = stack,
            CreatePositions = root => new BucketScores(root.Place(
                "mpnet.encoder.relative_attention_bias", new Embedding(Buckets, stack.HeadCount, options.Device, options.DType))),
            MaxSequenceLength = positions - PadId - 1,
            Head = Roberta.Head(stack.MlpDropout, tanh),
            TokenHead = new() { Dropout = stack.MlpDropout },
        };
    }

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options)
    {
        double attentionDropout = config.GetProbability("attention_probs_dropout_prob", 0.1);
        return StackSettings.Read(config, options, "mpnet.encoder.layer",
        [
            (LayerPart.Query, "attention.attn.q"),
            (LayerPart.Key, "attention.attn.k"),
            (LayerPart.Value, "attention.attn.v"),
            (LayerPart.AttentionOutput, "attention.attn.o"),
            (LayerPart.AttentionSumNorm, "attention.LayerNorm"),
            (LayerPart.Up, "intermediate.dense"),
            (LayerPart.Down, "output.dense"),
            (LayerPart.MlpSumNorm, "output.LayerNorm"),
        ]) with
        {
            AttentionDropout = attentionDropout,
            AttentionOutputDropout = attentionDropout,
            MlpDropout = config.GetProbability("hidden_dropout_prob", 0.1),
        };
    }

    /// <summary>A score for each head and bucket of distances, the same in all layers (Raffel et al., arXiv:1910.10683).</summary>
    /// <param name="table">[buckets, heads].</param>
    private sealed class BucketScores(Embedding table) : IRelativePositions
    {
        // Half of the buckets for each direction, half of these for distances of their own; the rest grows to this distance.
        private const int Exact = Buckets / 4;
        private const int Farthest = 128;

        public PositionScores Start(long length, Device device, bool training)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor places = arange(length, ScalarType.Int64, device);
            Tensor ahead = places.unsqueeze(0) - places.unsqueeze(1);
            Tensor distance = ahead.abs();
            Tensor far = (Exact + ((distance.to(ScalarType.Float32) / Exact).log() / Math.Log((double)Farthest / Exact) * Exact).to(ScalarType.Int64)).clamp_max((2 * Exact) - 1);
            Tensor buckets = where(distance.lt(Exact), distance, far) + (ahead.gt(0).to(ScalarType.Int64) * (2 * Exact));
            return new Scores(table.call(buckets).permute(2, 0, 1).unsqueeze(0).MoveToOuterDisposeScope());
        }

        private sealed class Scores(Tensor computed) : PositionScores
        {
            public override Tensor Get(PositionQuery layer) => computed;

            public override PositionScores HoldIn(ActivationCheckpoints checkpoints) => new Scores(checkpoints.Share(computed));
        }
    }
}
