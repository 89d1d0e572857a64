using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;
using Embedding = LoKr.Core.Nn.Embedding;

namespace LoKr.Models.Families;

/// <summary>
/// DeBERTa v2 (He et al., arXiv:2006.03654) and v3 (arXiv:2111.09543), <c>DebertaV2ForSequenceClassification</c> in transformers: BERT's layers with
/// scores of contents and distances to each other, and in the largest sizes a convolution beside the first layer.
/// </summary>
internal static class DebertaV2
{
    private const string ClassName = "DebertaV2ForSequenceClassification";
    private const string Body = "deberta.encoder.";

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = EncoderFamily.Register(
        "deberta-v2",
        ClassName,
        Read,
        new CheckpointLayout
        {
            BasePrefix = "deberta.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",

            // The published checkpoints of v3 have none.
            OptionalPrefixes = ["pooler."],
            SkippedPrefixes = ["lm_predictions.", "mask_predictions.", "cls.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],
        });

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        RelativeTerms terms = RelativeTerms.Read(config);
        StackSettings stack = ReadStack(config, options, terms);
        CheckWidths(config, stack);
        int positions = config.GetSize("max_position_embeddings", 512);
        int types = config.GetInt("type_vocab_size", 0);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts =
                [
                    (EmbeddingPart.Tokens, "deberta.embeddings.word_embeddings"),
                    .. config.GetBool("position_biased_input", true) ? new[] { (EmbeddingPart.Positions, "deberta.embeddings.position_embeddings") } : [],
                    .. types > 0 ? new[] { (EmbeddingPart.Types, "deberta.embeddings.token_type_embeddings") } : [],
                    (EmbeddingPart.Norm, "deberta.embeddings.LayerNorm"),
                ],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = stack.HiddenSize,
                PositionCount = positions,
                TypeCount = types,
                NormEpsilon = stack.NormEpsilon,
                Dropout = stack.MlpDropout,
                ClearsPadding = true,
                Options = options,
            },
            Stack = stack,
            CreateEnding = config.GetInt("conv_kernel_size", 0) > 0 ? root => new Convolution(root, config, stack) : null,
            CreatePositions = terms.IsUsed ? root => new DisentangledPositions(root, terms, stack) : null,
            MaxSequenceLength = positions,
            Head = new()
            {
                InputDropout = config.GetProbability("pooler_dropout", 0),
                DenseName = "pooler.dense",
                Activation = Activation.Get(config, "pooler_hidden_act", "gelu"),
                Dropout = config.GetProbability("cls_dropout", stack.MlpDropout),
            },
            TokenHead = new() { Dropout = stack.MlpDropout },
        };
    }

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options, RelativeTerms terms)
    {
        double dropout = config.GetProbability("hidden_dropout_prob", 0.1);
        return StackSettings.Read(config, options, Body + "layer",
        [
            (LayerPart.Query, "attention.self.query_proj"),
            (LayerPart.Key, "attention.self.key_proj"),
            (LayerPart.Value, "attention.self.value_proj"),
            .. terms.HasOwnKeys ? new[] { (LayerPart.PositionKey, "attention.self.pos_key_proj") } : [],
            .. terms.HasOwnQueries ? new[] { (LayerPart.PositionQuery, "attention.self.pos_query_proj") } : [],
            (LayerPart.AttentionOutput, "attention.output.dense"),
            (LayerPart.AttentionSumNorm, "attention.output.LayerNorm"),
            (LayerPart.Up, "intermediate.dense"),
            (LayerPart.Down, "output.dense"),
            (LayerPart.MlpSumNorm, "output.LayerNorm"),
        ], normEpsilon: 1e-7) with
        {
            QueryScale = _ => 1 / Math.Sqrt(terms.ScoreCount),
            AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0.1),
            AttentionOutputDropout = dropout,
            MlpDropout = dropout,
        };
    }

    private static void CheckWidths(ModelConfig config, StackSettings stack)
    {
        Check("embedding_size", stack.HiddenSize, "the hidden_size");
        Check("pooler_hidden_size", stack.HiddenSize, "the hidden_size");
        Check("attention_head_size", stack.HeadWidth, "the hidden_size over num_attention_heads");

        void Check(string key, int expected, string meaning)
        {
            if (config.GetSize(key, expected) is int size && size != expected)
            {
                throw config.Unsupported(key, $"is {size}, not {expected}, {meaning}");
            }
        }
    }

    /// <summary>Which scores by distance the layers have, and how distances are counted.</summary>
    private sealed record RelativeTerms
    {
        /// <summary>Whether there are any.</summary>
        public required bool IsUsed { get; init; }

        /// <summary>Whether contents are scored with the keys of distances (c2p).</summary>
        public required bool HasKeys { get; init; }

        /// <summary>Whether contents are scored with the queries of distances (p2c).</summary>
        public required bool HasQueries { get; init; }

        /// <summary>Whether distances are projected by the layers' own queries and keys, adapters included.</summary>
        public required bool IsShared { get; init; }

        /// <summary>Whether the table of distances is normalized.</summary>
        public required bool IsNormalized { get; init; }

        /// <summary>Buckets of distances on each side; 0 where every distance has its own.</summary>
        public required int Buckets { get; init; }

        /// <summary>Largest distance.</summary>
        public required int Farthest { get; init; }

        /// <summary>Rows of the table for each side.</summary>
        public int Span => Buckets > 0 ? Buckets : Farthest;

        /// <summary>Kinds of scores, that of contents included, by whose root all are divided.</summary>
        public int ScoreCount => 1 + (HasKeys ? 1 : 0) + (HasQueries ? 1 : 0);

        /// <summary>Whether the layers have projections of distances to keys.</summary>
        public bool HasOwnKeys => IsUsed && HasKeys && !IsShared;

        /// <summary>Whether the layers have projections of distances to queries.</summary>
        public bool HasOwnQueries => IsUsed && HasQueries && !IsShared;

        /// <summary>Reads and checks a configuration.</summary>
        public static RelativeTerms Read(ModelConfig config)
        {
            string[] types = ReadTypes(config);
            if (Array.Find(types, static type => type is not ("c2p" or "p2c")) is string unknown)
            {
                throw config.Unsupported("pos_att_type", $"names '{unknown}'; c2p and p2c are supported");
            }

            string[] norms = config.GetString("norm_rel_ebd", "none").ToLowerInvariant().Split('|', StringSplitOptions.TrimEntries);
            if (Array.Find(norms, static norm => norm is not ("none" or "layer_norm")) is string other)
            {
                throw config.Unsupported("norm_rel_ebd", $"names '{other}'; none and layer_norm are supported");
            }

            int farthest = config.GetInt("max_relative_positions", -1);
            RelativeTerms terms = new()
            {
                IsUsed = config.GetBool("relative_attention", false),
                HasKeys = types.Contains("c2p"),
                HasQueries = types.Contains("p2c"),
                IsShared = config.GetBool("share_att_key", false),
                IsNormalized = norms.Contains("layer_norm"),
                Buckets = Math.Max(0, config.GetInt("position_buckets", -1)),
                Farthest = farthest < 1 ? config.GetSize("max_position_embeddings", 512) : farthest,
            };
            return terms.IsUsed && types.Length == 0 ? throw config.Unsupported("pos_att_type", "names no scores, though relative_attention is true")
                : terms.IsNormalized && !terms.IsUsed ? throw config.Unsupported("norm_rel_ebd", "is layer_norm, though relative_attention is false")
                : terms.Buckets is 1 || (terms.Buckets > 0 && terms.Farthest <= (terms.Buckets / 2) + 1)
                    ? throw config.Invalid("position_buckets", $"is {terms.Buckets}, which distances up to {terms.Farthest} cannot fill")
                : terms;
        }

        // A list, or one string with bars.
        private static string[] ReadTypes(ModelConfig config) => config.Find("pos_att_type") is { ValueKind: JsonValueKind.String }
            ? config.GetString("pos_att_type").ToLowerInvariant().Split('|', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)
            : [.. config.GetStrings("pos_att_type")];
    }

    /// <summary>
    /// Scores of contents with distances and of distances with contents: q·k(d) and k·q(d), where d is the bucket of the distance, and k(d) and q(d)
    /// are projections of one table for all layers.
    /// </summary>
    private sealed class DisentangledPositions : IRelativePositions
    {
        private readonly RelativeTerms _terms;
        private readonly StackSettings _stack;
        private readonly Embedding _table;
        private readonly nn.Module<Tensor, Tensor>? _norm;

        public DisentangledPositions(nn.Module root, RelativeTerms terms, StackSettings stack)
        {
            (_terms, _stack) = (terms, stack);
            _table = root.Place(Body + "rel_embeddings", new Embedding(2L * terms.Span, stack.HiddenSize, stack.Options.Device, stack.Options.DType));
            _norm = terms.IsNormalized ? root.Place(Body + "LayerNorm", stack.CreateNorm(stack.HiddenSize)) : null;
        }

        public PositionScores Start(long length, Device device, bool training) =>
            new Scores(this, Rows(length, device), Positions(device), training);

        // The row of the table for each query position (row) and key position (column).
        private Tensor Rows(long length, Device device)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor places = arange(length, ScalarType.Int64);
            Tensor back = places.unsqueeze(1) - places.unsqueeze(0);
            Tensor distance = _terms.Buckets > 0 ? back.sign() * Bucket(back.abs()) : back;
            return (distance + _terms.Span).clamp(0, (2L * _terms.Span) - 1).to(device).MoveToOuterDisposeScope();
        }

        // Each distance up to half of the buckets has its own, the others share by their logarithm; in float32, as in transformers.
        private Tensor Bucket(Tensor distance)
        {
            int half = _terms.Buckets / 2;
            Tensor steps = (distance.to(ScalarType.Float32) / half).log() / tensor((float)((_terms.Farthest - 1.0) / half)).log() * (half - 1);
            return where(distance.le(half), distance, (steps.ceil() + half).to(ScalarType.Int64));
        }

        // [rows, hidden]
        private Tensor Positions(Device device)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor rows = _table.call(arange(2L * _terms.Span, ScalarType.Int64, device));
            return (_norm is null ? rows : _norm.call(rows)).MoveToOuterDisposeScope();
        }

        private sealed class Scores(DisentangledPositions positions, Tensor rows, Tensor table, bool training) : PositionScores
        {
            public override Tensor Get(PositionQuery layer)
            {
                using DisposeScope scope = NewDisposeScope();
                RelativeTerms terms = positions._terms;
                Tensor dropped = table.WithDropout(positions._stack.MlpDropout, training).unsqueeze(0);
                List<Tensor> scores = [];
                if (terms.HasKeys)
                {
                    scores.Add(Gather(layer.Query, layer.ProjectKey!.call(dropped), rows));
                }

                if (terms.HasQueries)
                {
                    scores.Add(Gather(layer.Key, layer.ProjectQuery!.call(dropped), rows.t()).transpose(-2, -1));
                }

                Tensor sum = scores.Aggregate(static (one, other) => one + other);
                return (sum / Math.Sqrt((double)positions._stack.HeadWidth * terms.ScoreCount)).MoveToOuterDisposeScope();
            }

            public override PositionScores HoldIn(ActivationCheckpoints checkpoints) => new Scores(positions, checkpoints.Hold(rows)!, checkpoints.Share(table), training);

            // Scores of every content with every row of the table, of which each pair of positions takes one: [batch, heads, length, length].
            private Tensor Gather(Tensor content, Tensor projected, Tensor index)
            {
                Tensor heads = Attention.SplitHeads(projected, positions._stack.HeadCount);
                Tensor all = content.matmul(heads.transpose(-2, -1));
                return all.gather(-1, index.expand(all.shape[0], all.shape[1], -1, -1));
            }
        }
    }

    /// <summary>A convolution over the input of the first layer, which is added to its output.</summary>
    private sealed class Convolution : ILayerEnding
    {
        private readonly Conv1d _convolution;
        private readonly nn.Module<Tensor, Tensor> _norm;
        private readonly Func<Tensor, Tensor> _activation;
        private readonly double _dropout;

        public Convolution(nn.Module root, ModelConfig config, StackSettings stack)
        {
            (int kernel, int groups) = (config.GetSize("conv_kernel_size"), config.GetSize("conv_groups", 1));
            if (kernel % 2 == 0)
            {
                throw config.Unsupported("conv_kernel_size", $"is {kernel}; an odd one keeps the length of the text");
            }

            if (stack.HiddenSize % groups != 0)
            {
                throw config.Invalid("conv_groups", $"is {groups}, which does not divide the hidden_size {stack.HiddenSize}");
            }

            _convolution = root.Place(Body + "conv.conv", nn.Conv1d(
                stack.HiddenSize, stack.HiddenSize, kernel, padding: (kernel - 1L) / 2, groups: groups, device: stack.Options.Device, dtype: stack.Options.DType));
            _norm = root.Place(Body + "conv.LayerNorm", stack.CreateNorm(stack.HiddenSize));
            _activation = Activation.Get(config, "conv_act", "tanh");
            _dropout = stack.MlpDropout;
        }

        public Tensor Run(Tensor input, Tensor output, AttentionPass pass, bool training)
        {
            using DisposeScope scope = NewDisposeScope();
            Tensor x = _convolution.call(input.transpose(1, 2)).transpose(1, 2);

            // [batch, 1, 1, length] → [batch, length, 1]
            Tensor? tokens = pass.Mask(null)?.squeeze(1).transpose(1, 2).to(x.dtype);
            x = tokens is null ? x : x * tokens;
            x = _norm.call(output + _activation(x.WithDropout(_dropout, training)));
            return (tokens is null ? x : x * tokens).MoveToOuterDisposeScope();
        }
    }
}
