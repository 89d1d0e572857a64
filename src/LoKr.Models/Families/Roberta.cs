using LoKr.Core.Configuration;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// RoBERTa (Liu et al., arXiv:1907.11692) and XLM-RoBERTa (Conneau et al., arXiv:1911.02116), <c>RobertaForSequenceClassification</c> and
/// <c>XLMRobertaForSequenceClassification</c> in transformers: BERT's encoder without pooler, positions counted from the padding id on, a head of
/// two layers.
/// </summary>
internal static class Roberta
{
    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } =
        [.. Register("roberta", "RobertaForSequenceClassification"), .. Register("xlm-roberta", "XLMRobertaForSequenceClassification")];

    /// <summary>Padding keeps the position of the padding id; tokens count on from it, as in fairseq.</summary>
    /// <param name="ids">Token ids [batch, length].</param>
    /// <param name="padId">Id of padding.</param>
    internal static Tensor PositionIds(Tensor ids, int padId)
    {
        using TorchSharp.DisposeScope scope = NewDisposeScope();
        Tensor tokens = ids.ne(padId).to_type(ScalarType.Int64);
        return ((tokens.cumsum(1) * tokens) + padId).MoveToOuterDisposeScope();
    }

    /// <summary>The head of two layers.</summary>
    /// <param name="dropout">Dropout before both.</param>
    /// <param name="activation">Activation of the first.</param>
    internal static HeadSettings Head(double dropout, Func<Tensor, Tensor> activation) => new()
    {
        InputDropout = dropout,
        DenseName = "classifier.dense",
        Activation = activation,
        Dropout = dropout,
        OutputName = "classifier.out_proj",
    };

    private static IReadOnlyList<ModelArchitecture> Register(string modelType, string className) => EncoderFamily.Register(
        modelType,
        className,
        (config, options) => Read(config, options, className),
        new CheckpointLayout
        {
            BasePrefix = "roberta.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.out_proj.weight",
            SkippedPrefixes = ["lm_head.", "qa_outputs.", "roberta.pooler."],
            SkippedSuffixes = [".position_ids", ".token_type_ids"],
            RenamedSuffixes = Bert.OldNames,
        });

    private static EncoderSettings Read(ModelConfig config, ModelBuildOptions options, string className)
    {
        EncoderSettings settings = Bert.Read(config, options, className, "roberta", static dropout => Head(dropout, tanh));
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
}
