using LoKr.Core.Configuration;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// DistilBERT (Sanh et al., arXiv:1910.01108) with a head of two layers on the first token, <c>DistilBertForSequenceClassification</c> in
/// transformers: BERT's layers under other names, without token types and without dropout after the attention.
/// </summary>
internal static class DistilBert
{
    private const string ClassName = "DistilBertForSequenceClassification";

    // Fixed in the architecture.
    private const double NormEpsilon = 1e-12;

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = EncoderFamily.Register(
        "distilbert",
        ClassName,
        Read,
        new CheckpointLayout
        {
            BasePrefix = "distilbert.",
            HeadPrefixes = ["pre_classifier.", "classifier."],
            LabelWeight = "classifier.weight",
            SkippedPrefixes = ["vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],
        });

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        double dropout = config.GetProbability("dropout", 0.1);
        int hidden = config.GetSize("dim");
        int positions = config.GetSize("max_position_embeddings", 512);
        return new()
        {
            ClassName = ClassName,
            Embeddings = new()
            {
                Parts =
                [
                    (EmbeddingPart.Tokens, "distilbert.embeddings.word_embeddings"),
                    (EmbeddingPart.Positions, "distilbert.embeddings.position_embeddings"),
                    (EmbeddingPart.Norm, "distilbert.embeddings.LayerNorm"),
                ],
                VocabularySize = config.GetSize("vocab_size"),
                HiddenSize = hidden,
                PositionCount = positions,
                NormEpsilon = NormEpsilon,
                Dropout = dropout,
                Options = options,
            },
            Stack = new()
            {
                Name = "distilbert.transformer.layer",
                Layer =
                [
                    (LayerPart.Query, "attention.q_lin"),
                    (LayerPart.Key, "attention.k_lin"),
                    (LayerPart.Value, "attention.v_lin"),
                    (LayerPart.AttentionOutput, "attention.out_lin"),
                    (LayerPart.AttentionSumNorm, "sa_layer_norm"),
                    (LayerPart.Up, "ffn.lin1"),
                    (LayerPart.Down, "ffn.lin2"),
                    (LayerPart.MlpSumNorm, "output_layer_norm"),
                ],
                LayerCount = config.GetSize("n_layers"),
                HiddenSize = hidden,
                IntermediateSize = config.GetSize("hidden_dim"),
                HeadCount = StackSettings.ReadHeads(config, "n_heads", "dim"),
                Activation = Activation.Get(config, "activation", "gelu"),
                NormEpsilon = NormEpsilon,
                AttentionDropout = config.GetProbability("attention_dropout", 0.1),
                MlpDropout = dropout,
                Options = options,
            },
            MaxSequenceLength = positions,
            Head = new()
            {
                DenseName = "pre_classifier",
                Activation = static x => nn.functional.relu(x),
                Dropout = config.GetProbability("seq_classif_dropout", 0.2),
            },
            TokenHead = new() { Dropout = dropout },
        };
    }
}
