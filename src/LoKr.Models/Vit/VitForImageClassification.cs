using System.Text.Json.Nodes;
using LoKr.Core;
using LoKr.Core.Modeling;
using LoKr.Models.Shared;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Vit;

/// <summary>
/// The vision transformer (Dosovitskiy et al., arXiv:2010.11929) with a linear layer on the class token: <c>call(pixelValues)</c> gives the
/// logits [batch, labels]. Modules are named as in transformers 5; checkpoints and adapters may have the older, published names.
/// </summary>
public sealed class VitForImageClassification : nn.Module<Tensor, Tensor>, IImageClassifier, IPublishedNames
{
    private const string ClassName = "ViTForImageClassification";

    private static readonly PublishedNames _names = new(
        ("vit.encoder.layer.*.attention.attention.query", "vit.layers.*.attention.q_proj"),
        ("vit.encoder.layer.*.attention.attention.key", "vit.layers.*.attention.k_proj"),
        ("vit.encoder.layer.*.attention.attention.value", "vit.layers.*.attention.v_proj"),
        ("vit.encoder.layer.*.attention.output.dense", "vit.layers.*.attention.o_proj"),
        ("vit.encoder.layer.*.intermediate.dense", "vit.layers.*.mlp.fc1"),
        ("vit.encoder.layer.*.output.dense", "vit.layers.*.mlp.fc2"),
        ("vit.encoder.layer", "vit.layers"));

    [ComponentName(Name = "vit")]
    private readonly VitModel _vit;

    [ComponentName(Name = "classifier")]
    private readonly Linear _classifier;

    private VitForImageClassification(ModelConfig config, ModelBuildOptions options, VitSettings settings)
        : base(ClassName)
    {
        ModelType = config.ModelType;
        (ChannelCount, ImageHeight, ImageWidth) = (settings.ChannelCount, settings.ImageHeight, settings.ImageWidth);
        Labels = ClassificationLabels.Resolve(config, options.Labels, headRows: null);
        Config = (JsonObject)config.Json.DeepClone();
        Config["architectures"] = new JsonArray(ClassName);
        ClassificationLabels.Write(Config, Labels);
        _vit = new VitModel(settings);
        _classifier = nn.Linear(settings.HiddenSize, Labels.Count, device: options.Device, dtype: options.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public IReadOnlyList<string> Labels { get; }

    /// <inheritdoc/>
    public int ChannelCount { get; }

    /// <inheritdoc/>
    public int ImageHeight { get; }

    /// <inheritdoc/>
    public int ImageWidth { get; }

    /// <inheritdoc/>
    bool IPublishedNames.SavesPublishedNames { get; set; } = true;

    internal static ModelArchitecture Registration { get; } = new(
        "vit",
        ClassName,
        (config, options) => new VitForImageClassification(config, options, new VitSettings(config, options)),
        new CheckpointLayout
        {
            BasePrefix = "vit.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",

            // Parts of the bare encoder and of masked image modelling that a classifier does not have.
            SkippedPrefixes = ["vit.pooler.", "pooler.", "vit.embeddings.mask_token", "decoder."],
            Names = _names,
        })
    {
        TakesTokens = false,
    };

    /// <inheritdoc/>
    public string Canonical(string name) => _names.Canonical(name);

    /// <inheritdoc/>
    public string Published(string name) => _names.Published(name);

    /// <inheritdoc/>
    public Tensor Classify(Tensor pixelValues) => call(pixelValues);

    /// <summary>Logits [batch, labels] of images, floating point [batch, channels, height, width].</summary>
    public override Tensor forward(Tensor input)
    {
        CheckInput(input);
        using DisposeScope scope = NewDisposeScope();
        return _classifier.call(_vit.call(input)[.., 0]).MoveToOuterDisposeScope();
    }

    // Position embeddings are those of the checkpoint's image size; they are not interpolated to another.
    private void CheckInput(Tensor pixelValues)
    {
        ArgumentNullException.ThrowIfNull(pixelValues);
        bool fits = pixelValues.is_floating_point() && pixelValues.dim() == 4
            && pixelValues.shape.AsSpan(1).SequenceEqual([ChannelCount, ImageHeight, ImageWidth]);
        if (!fits)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument,
                $"{ClassName}: the images are {pixelValues.dtype} [{string.Join(", ", pixelValues.shape)}], not floating point [batch, {ChannelCount}, {ImageHeight}, {ImageWidth}].",
                "Resize and normalise the images as the model's preprocessor_config.json says; position embeddings are not interpolated to other sizes.");
        }
    }
}
