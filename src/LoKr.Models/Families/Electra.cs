using LoKr.Core.Configuration;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// ELECTRA (Clark et al., arXiv:2003.10555), <c>ElectraForSequenceClassification</c> in transformers: BERT's encoder without pooler, with narrower
/// embeddings in the small sizes, and RoBERTa's head with another activation.
/// </summary>
internal static class Electra
{
    private const string ClassName = "ElectraForSequenceClassification";

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = EncoderFamily.Register(
        "electra",
        ClassName,
        Read,
        new CheckpointLayout
        {
            BasePrefix = "electra.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.out_proj.weight",
            SkippedPrefixes = ["discriminator_predictions.", "generator_predictions.", "generator_lm_head.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],
        });

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options)
    {
        EncoderSettings settings = Bert.Read(config, options, ClassName, "electra", static dropout => Roberta.Head(dropout, static x => nn.functional.gelu(x)));
        EmbeddingSettings embeddings = settings.Embeddings with { HiddenSize = config.GetSize("embedding_size", 128), ProjectedSize = settings.Stack.HiddenSize };
        return embeddings.HiddenSize == embeddings.ProjectedSize
            ? settings
            : settings with { Embeddings = embeddings with { Parts = [.. embeddings.Parts, (EmbeddingPart.Projection, "electra.embeddings_project")] } };
    }
}
