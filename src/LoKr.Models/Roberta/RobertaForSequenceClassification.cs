using LoKr.Models.Bert;
using TorchSharp;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Roberta;

/// <summary>
/// RoBERTa (Liu et al., arXiv:1907.11692): BERT's encoder without pooler, positions counted from the padding id on, a head of two layers.
/// Modules and parameters are named as in transformers.
/// </summary>
public sealed class RobertaForSequenceClassification : EncoderClassifier
{
    [ComponentName(Name = "roberta")]
    private readonly BertModel _roberta;

    [ComponentName(Name = "classifier")]
    private readonly RobertaClassificationHead _classifier;

    private readonly int _padId;

    private RobertaForSequenceClassification(ModelConfig config, ModelBuildOptions options, BertSettings settings, int padId)
        : base(nameof(RobertaForSequenceClassification), config, options.Labels, settings.PositionCount - padId - 1)
    {
        _padId = padId;
        _roberta = new BertModel("RobertaModel", settings, PositionIds, withPooler: false);
        _classifier = new RobertaClassificationHead(settings, Labels.Count);
        RegisterComponents();
    }

    internal static ModelArchitecture Registration { get; } = new(
        "roberta",
        nameof(RobertaForSequenceClassification),
        Build,
        new CheckpointLayout
        {
            BasePrefix = "roberta.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.out_proj.weight",
            SkippedPrefixes = ["lm_head.", "qa_outputs.", "roberta.pooler."],
            SkippedSuffixes = [".position_ids", ".token_type_ids"],
            RenamedSuffixes = new Dictionary<string, string> { [".gamma"] = ".weight", [".beta"] = ".bias" },
        });

    /// <inheritdoc/>
    protected override Tensor Encode(Tensor inputIds, Tensor? mask) => _roberta.call(inputIds, mask);

    /// <inheritdoc/>
    protected override Tensor Head(Tensor hiddenStates) => _classifier.call(hiddenStates);

    private static RobertaForSequenceClassification Build(ModelConfig config, ModelBuildOptions options)
    {
        BertSettings settings = new(config, options);
        int padId = config.GetInt("pad_token_id", 1)!.Value;
        return padId >= 0 && padId + 1 < settings.PositionCount
            ? new RobertaForSequenceClassification(config, options, settings, padId)
            : throw config.Invalid("pad_token_id", $"is {padId}, which leaves no room in {settings.PositionCount} positions");
    }

    // Padding keeps the position of the padding id; tokens count on from it, as in fairseq.
    private Tensor PositionIds(Tensor inputIds)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor tokens = inputIds.ne(_padId).to_type(ScalarType.Int64);
        return ((tokens.cumsum(1) * tokens) + _padId).MoveToOuterDisposeScope();
    }
}
