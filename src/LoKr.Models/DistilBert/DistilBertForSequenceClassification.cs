using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.DistilBert;

/// <summary>
/// DistilBERT (Sanh et al., arXiv:1910.01108) with a head of two layers on the first token. Modules and parameters are named as in transformers.
/// </summary>
public sealed class DistilBertForSequenceClassification : EncoderClassifier
{
    [ComponentName(Name = "distilbert")]
    private readonly DistilBertModel _distilbert;

    [ComponentName(Name = "pre_classifier")]
    private readonly Linear _preClassifier;

    [ComponentName(Name = "classifier")]
    private readonly Linear _classifier;

    [ComponentName(Name = "dropout")]
    private readonly Dropout _dropout;

    private DistilBertForSequenceClassification(ModelConfig config, ModelBuildOptions options, DistilBertSettings settings)
        : base(nameof(DistilBertForSequenceClassification), config, options.Labels, settings.PositionCount)
    {
        _distilbert = new DistilBertModel(settings);
        _preClassifier = nn.Linear(settings.HiddenSize, settings.HiddenSize, device: options.Device, dtype: options.DType);
        _classifier = nn.Linear(settings.HiddenSize, Labels.Count, device: options.Device, dtype: options.DType);
        _dropout = nn.Dropout(settings.ClassifierDropout);
        RegisterComponents();
    }

    internal static ModelArchitecture Registration { get; } = new(
        "distilbert",
        nameof(DistilBertForSequenceClassification),
        (config, options) => new DistilBertForSequenceClassification(config, options, new DistilBertSettings(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "distilbert.",
            HeadPrefixes = ["pre_classifier.", "classifier."],
            LabelWeight = "classifier.weight",
            SkippedPrefixes = ["vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "qa_outputs."],
            SkippedSuffixes = [".position_ids"],
        });

    /// <inheritdoc/>
    protected override Tensor Encode(Tensor inputIds, Tensor? mask) => _distilbert.call(inputIds, mask);

    /// <inheritdoc/>
    protected override Tensor Head(Tensor hiddenStates)
    {
        Tensor first = nn.functional.relu(_preClassifier.call(hiddenStates.select(1, 0)));
        return _classifier.call(_dropout.call(first));
    }
}
