using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>The sizes of a vision transformer, checked.</summary>
internal sealed record VitSettings
{
    /// <summary>Reads and checks a configuration.</summary>
    public VitSettings(ModelConfig config, ModelBuildOptions options)
    {
        HiddenSize = config.GetSize("hidden_size");
        LayerCount = config.GetSize("num_hidden_layers");
        HeadCount = config.GetSize("num_attention_heads");
        IntermediateSize = config.GetSize("intermediate_size");
        ChannelCount = config.GetSize("num_channels", 3);
        (ImageHeight, ImageWidth) = ReadPair(config, "image_size", 224);
        (PatchHeight, PatchWidth) = ReadPair(config, "patch_size", 16);
        LayerNormEpsilon = config.GetDouble("layer_norm_eps", 1e-12);
        HiddenDropout = config.GetProbability("hidden_dropout_prob", 0);
        AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0);
        HasInputBias = config.GetBool("qkv_bias", true);
        Activation = Families.Activation.Get(config, "hidden_act", "gelu");
        Device = options.Device;
        DType = options.DType;

        if (HiddenSize % HeadCount != 0)
        {
            throw config.Invalid("num_attention_heads", $"is {HeadCount}, which does not divide the hidden_size {HiddenSize}");
        }

        if (ImageHeight < PatchHeight || ImageWidth < PatchWidth)
        {
            throw config.Invalid("patch_size", $"is {PatchHeight}×{PatchWidth}, larger than the image of {ImageHeight}×{ImageWidth}");
        }
    }

    public int HiddenSize { get; }

    public int LayerCount { get; }

    public int HeadCount { get; }

    public int IntermediateSize { get; }

    public int ChannelCount { get; }

    public int ImageHeight { get; }

    public int ImageWidth { get; }

    public int PatchHeight { get; }

    public int PatchWidth { get; }

    /// <summary>Patches of an image; what is left over at its edges belongs to none.</summary>
    public int PatchCount => ImageHeight / PatchHeight * (ImageWidth / PatchWidth);

    public double LayerNormEpsilon { get; }

    public double HiddenDropout { get; }

    public double AttentionDropout { get; }

    public bool HasInputBias { get; }

    public Func<Tensor, Tensor> Activation { get; }

    public Device Device { get; }

    public ScalarType DType { get; }

    // One number for a square, or height and width.
    private static (int Height, int Width) ReadPair(ModelConfig config, string key, int defaultValue)
    {
        IReadOnlyList<int> values = config.Has(key) ? config.GetInts(key) : [defaultValue];
        return values.Count is 1 or 2 && values.All(value => value > 0)
            ? (values[0], values[^1])
            : throw config.Invalid(key, $"is {string.Join(", ", values)}, not one or two positive numbers");
    }
}

/// <summary>One vector a patch: a convolution whose kernel and stride are the patch.</summary>
internal sealed class VitPatchEmbeddings : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "projection")]
    private readonly Conv2d _projection;

    public VitPatchEmbeddings(VitSettings settings)
        : base(nameof(VitPatchEmbeddings))
    {
        (long, long) patch = (settings.PatchHeight, settings.PatchWidth);
        _projection = nn.Conv2d(settings.ChannelCount, settings.HiddenSize, patch, stride: patch, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Images [batch, channels, height, width] in any floating-point type → [batch, patches, hidden] in the model's.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return _projection.call(input.to(_projection.weight.dtype)).flatten(2).transpose(1, 2).MoveToOuterDisposeScope();
    }
}

/// <summary>Patch embeddings behind the class token, plus position embeddings.</summary>
internal sealed class VitEmbeddings : nn.Module<Tensor, Tensor>, IParameterOwner
{
    [ComponentName(Name = "cls_token")]
    private Parameter _classToken;

    [ComponentName(Name = "position_embeddings")]
    private Parameter _positions;

    [ComponentName(Name = "patch_embeddings")]
    private readonly VitPatchEmbeddings _patches;

    private readonly double _dropout;

    public VitEmbeddings(VitSettings settings)
        : base(nameof(VitEmbeddings))
    {
        _classToken = Make(1);
        _positions = Make(settings.PatchCount + 1);
        _patches = new VitPatchEmbeddings(settings);
        _dropout = settings.HiddenDropout;
        RegisterComponents();

        Parameter Make(long count) => (Parameter)nn.Parameter(
            empty(1, count, settings.HiddenSize, device: settings.Device, dtype: settings.DType)).DetachFromDisposeScope();
    }

    /// <summary>Images [batch, channels, height, width] → [batch, patches + 1, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor patches = _patches.call(input);
        Tensor x = cat([_classToken.expand(patches.shape[0], -1, -1), patches], 1) + _positions;
        return nn.functional.dropout(x, _dropout, training).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void SetParameter(string name, Parameter parameter)
    {
        switch (name)
        {
            case "cls_token":
                Replace(ref _classToken, name, parameter);
                break;
            case "position_embeddings":
                Replace(ref _positions, name, parameter);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(name), name, "The embeddings have a cls_token and position_embeddings.");
        }
    }

    private void Replace(ref Parameter place, string name, Parameter parameter)
    {
        if (!ReferenceEquals(place, parameter))
        {
            place.Dispose();
            place = (Parameter)parameter.DetachFromDisposeScope();
            ConditionallyRegisterParameter(name, place);
        }
    }
}

/// <summary>Multi-head self-attention over all patches.</summary>
internal sealed class VitAttention : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "q_proj")]
    private readonly Linear _query;

    [ComponentName(Name = "k_proj")]
    private readonly Linear _key;

    [ComponentName(Name = "v_proj")]
    private readonly Linear _value;

    [ComponentName(Name = "o_proj")]
    private readonly Linear _output;

    private readonly int _heads;
    private readonly double _attentionDropout;
    private readonly double _hiddenDropout;

    public VitAttention(VitSettings settings)
        : base(nameof(VitAttention))
    {
        (_heads, _attentionDropout, _hiddenDropout) = (settings.HeadCount, settings.AttentionDropout, settings.HiddenDropout);
        _query = Project(settings.HasInputBias);
        _key = Project(settings.HasInputBias);
        _value = Project(settings.HasInputBias);
        _output = Project(true);
        RegisterComponents();

        Linear Project(bool bias) => nn.Linear(settings.HiddenSize, settings.HiddenSize, bias, settings.Device, settings.DType);
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor context = Attention.ScaledDotProduct(
            Attention.SplitHeads(_query.call(input), _heads),
            Attention.SplitHeads(_key.call(input), _heads),
            Attention.SplitHeads(_value.call(input), _heads),
            dropout: training ? _attentionDropout : 0);
        Tensor output = _output.call(Attention.MergeHeads(context));
        return nn.functional.dropout(output, _hiddenDropout, training).MoveToOuterDisposeScope();
    }
}

/// <summary>The feed-forward block.</summary>
internal sealed class VitMlp : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "fc1")]
    private readonly Linear _inner;

    [ComponentName(Name = "fc2")]
    private readonly Linear _outer;

    private readonly Func<Tensor, Tensor> _activation;
    private readonly double _dropout;

    public VitMlp(VitSettings settings)
        : base(nameof(VitMlp))
    {
        _inner = nn.Linear(settings.HiddenSize, settings.IntermediateSize, device: settings.Device, dtype: settings.DType);
        _outer = nn.Linear(settings.IntermediateSize, settings.HiddenSize, device: settings.Device, dtype: settings.DType);
        (_activation, _dropout) = (settings.Activation, settings.HiddenDropout);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return nn.functional.dropout(_outer.call(_activation(_inner.call(input))), _dropout, training).MoveToOuterDisposeScope();
    }
}

/// <summary>Attention and feed-forward block, each on the normalized input and added to it.</summary>
internal sealed class VitLayer : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "attention")]
    private readonly VitAttention _attention;

    [ComponentName(Name = "mlp")]
    private readonly VitMlp _mlp;

    [ComponentName(Name = "layernorm_before")]
    private readonly LayerNorm _attentionNorm;

    [ComponentName(Name = "layernorm_after")]
    private readonly LayerNorm _mlpNorm;

    public VitLayer(VitSettings settings)
        : base(nameof(VitLayer))
    {
        _attention = new VitAttention(settings);
        _mlp = new VitMlp(settings);
        _attentionNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        _mlpNorm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>[batch, length, hidden] → [batch, length, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input + _attention.call(_attentionNorm.call(input));
        return (x + _mlp.call(_mlpNorm.call(x))).MoveToOuterDisposeScope();
    }
}

/// <summary>Embeddings, layers and the final norm.</summary>
internal sealed class VitModel : nn.Module<Tensor, Tensor>, ICheckpointedBlocks
{
    [ComponentName(Name = "embeddings")]
    private readonly VitEmbeddings _embeddings;

    [ComponentName(Name = "layers")]
    private readonly ModuleList<VitLayer> _layers;

    [ComponentName(Name = "layernorm")]
    private readonly LayerNorm _norm;

    public VitModel(VitSettings settings)
        : base(nameof(VitModel))
    {
        _embeddings = new VitEmbeddings(settings);
        _layers = new ModuleList<VitLayer>([.. Enumerable.Range(0, settings.LayerCount).Select(_ => new VitLayer(settings))]);
        _norm = nn.LayerNorm([settings.HiddenSize], settings.LayerNormEpsilon, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <inheritdoc/>
    public ActivationCheckpoints? Checkpoints { get; set; }

    /// <summary>Images [batch, channels, height, width] → hidden states [batch, patches + 1, hidden].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _embeddings.call(input);
        foreach (VitLayer layer in _layers)
        {
            Tensor next = Checkpoints is null ? layer.call(x) : Checkpoints.Run(layer, x, layer.call);
            x.Dispose();
            x = next;
        }

        return _norm.call(x).MoveToOuterDisposeScope();
    }
}

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

            // Parts of the bare encoder and of masked image modeling that a classifier does not have.
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
                "Resize and normalize the images as the model's preprocessor_config.json says; position embeddings are not interpolated to other sizes.");
        }
    }
}
