using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Bert;

/// <summary>
/// BERT (Devlin et al., arXiv:1810.04805) with a linear layer on the pooled first token. Modules and parameters are named as in transformers.
/// </summary>
public sealed class BertForSequenceClassification : EncoderClassifier
{
    [ComponentName(Name = "bert")]
    private readonly BertModel _bert;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    [ComponentName(Name = "classifier")]
    private readonly Linear _classifier;

    private BertForSequenceClassification(ModelConfig config, ModelBuildOptions options, BertSettings settings)
        : base(nameof(BertForSequenceClassification), config, options.Labels, settings.PositionCount)
    {
        _bert = new BertModel(nameof(BertModel), settings, PositionIds, withPooler: true);
        _dropout = nn.Dropout(settings.ClassifierDropout);
        _classifier = nn.Linear(settings.HiddenSize, Labels.Count, device: options.Device, dtype: options.DType);
        RegisterComponents();
    }

    internal static ModelArchitecture Registration { get; } = new(
        "bert",
        nameof(BertForSequenceClassification),
        (config, options) => new BertForSequenceClassification(config, options, new BertSettings(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "bert.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",
            OptionalPrefixes = ["bert.pooler."],
            SkippedPrefixes = ["cls.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],

            // Names of the first TensorFlow checkpoints, which bert-base-uncased still has.
            RenamedSuffixes = new Dictionary<string, string> { [".gamma"] = ".weight", [".beta"] = ".bias" },
        });

    /// <inheritdoc/>
    protected override Tensor Encode(Tensor inputIds, Tensor? mask) => _bert.call(inputIds, mask);

    /// <inheritdoc/>
    protected override Tensor Head(Tensor hiddenStates) => _classifier.call(_dropout.call(_bert.Pool(hiddenStates)));

    private static Tensor PositionIds(Tensor inputIds) => arange(inputIds.shape[1], ScalarType.Int64, inputIds.device).unsqueeze(0);
}
