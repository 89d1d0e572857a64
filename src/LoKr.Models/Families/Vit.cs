using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// The vision transformer (Dosovitskiy et al., arXiv:2010.11929) with a linear layer on the class token, <c>ViTForImageClassification</c> in
/// transformers: pre-norm over one vector for each patch of the image. <c>call(pixelValues)</c> returns the logits [batch, labels]. Modules are
/// named as in transformers 5; checkpoints and adapters may have the older, published names.
/// </summary>
public sealed class VitForImageClassification : nn.Module<Tensor, Tensor>, IPretrainedModel, IPublishedNames
{
    private const string ClassName = "ViTForImageClassification";

    private static readonly PublishedNames s_names = new(
        ("vit.encoder.layer.*.attention.attention.query", "vit.layers.*.attention.q_proj"),
        ("vit.encoder.layer.*.attention.attention.key", "vit.layers.*.attention.k_proj"),
        ("vit.encoder.layer.*.attention.attention.value", "vit.layers.*.attention.v_proj"),
        ("vit.encoder.layer.*.attention.output.dense", "vit.layers.*.attention.o_proj"),
        ("vit.encoder.layer.*.intermediate.dense", "vit.layers.*.mlp.fc1"),
        ("vit.encoder.layer.*.output.dense", "vit.layers.*.mlp.fc2"),
        ("vit.encoder.layer", "vit.layers"));

    private readonly VitImages _images;
    private readonly VitEmbeddings _embeddings;
    private readonly TransformerStack _stack;
    private readonly nn.Module<Tensor, Tensor> _norm;
    private readonly Linear _classifier;

    private VitForImageClassification(ModelConfig config, ModelBuildOptions options)
        : base(ClassName)
    {
        ModelType = config.ModelType;
        Labels = ClassificationLabels.Resolve(config, options.Labels, headRows: null);
        Config = ModelArchitecture.Describe(config, ClassName);
        ModelLabels.Write(Config, Labels);
        _images = new VitImages(config);
        StackSettings stack = ReadStack(config, options);
        _embeddings = this.Place("vit.embeddings", new VitEmbeddings(_images, stack));
        _stack = this.Place(stack.Name, new TransformerStack(stack));
        _norm = this.Place("vit.layernorm", stack.CreateNorm(stack.HiddenSize));
        _classifier = this.Place("classifier", nn.Linear(stack.HiddenSize, Labels.Count, device: options.Device, dtype: options.DType));
    }

    /// <inheritdoc/>
    public string ModelType { get; }

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <summary>Label names in the order of the logits.</summary>
    public IReadOnlyList<string> Labels { get; }

    /// <summary>Color channels of an image.</summary>
    public int ChannelCount => _images.ChannelCount;

    /// <summary>Height of an image in pixels.</summary>
    public int ImageHeight => _images.Height;

    /// <summary>Width of an image in pixels.</summary>
    public int ImageWidth => _images.Width;

    /// <inheritdoc/>
    bool IPublishedNames.SavesPublishedNames { get; set; } = true;

    internal static ModelArchitecture Registration { get; } = new(
        "vit",
        ClassName,
        static (config, options) => new VitForImageClassification(config, options),
        new CheckpointLayout
        {
            BasePrefix = "vit.",
            HeadPrefixes = ["classifier."],
            LabelWeight = "classifier.weight",

            // Parts of the bare encoder and of masked image modeling that a classifier does not have.
            SkippedPrefixes = ["vit.pooler.", "pooler.", "vit.embeddings.mask_token", "decoder."],
            Names = s_names,
        })
    {
        TakesTokens = false,
    };

    /// <inheritdoc/>
    public string Canonical(string name) => s_names.Canonical(name);

    /// <inheritdoc/>
    public string Published(string name) => s_names.Published(name);

    /// <summary>Logits [batch, labels] of normalized images, floating point [batch, channels, height, width].</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public override Tensor forward(Tensor input)
    {
        _images.Check(input);
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _embeddings.call(input);
        Tensor first = BatchPlaces.First(x.shape[0], x.shape[1], x.device);
        x = _stack.call(x, AttentionPass.Bidirectional(null, x.shape[1], x.device, [null]).Reading(first));
        return _classifier.call(_norm.call(x)).MoveToOuterDisposeScope();
    }

    /// <summary>The names are the checkpoint's, not those of the fields: everything is registered by the constructor.</summary>
    protected override void RegisterComponents()
    {
    }

    private static StackSettings ReadStack(ModelConfig config, ModelBuildOptions options)
    {
        double dropout = config.GetProbability("hidden_dropout_prob", 0);
        return StackSettings.Read(config, options, "vit.layers",
        [
            (LayerPart.Query, "attention.q_proj"),
            (LayerPart.Key, "attention.k_proj"),
            (LayerPart.Value, "attention.v_proj"),
            (LayerPart.AttentionOutput, "attention.o_proj"),
            (LayerPart.Up, "mlp.fc1"),
            (LayerPart.Down, "mlp.fc2"),
            (LayerPart.AttentionInputNorm, "layernorm_before"),
            (LayerPart.MlpInputNorm, "layernorm_after"),
        ]) with
        {
            HasInputBias = config.GetBool("qkv_bias", true),
            AttentionDropout = config.GetProbability("attention_probs_dropout_prob", 0),
            AttentionOutputDropout = dropout,
            MlpDropout = dropout,
        };
    }
}

/// <summary>Sizes of the images that a vision transformer takes, and of their patches.</summary>
internal sealed record VitImages
{
    /// <summary>Reads and checks a configuration.</summary>
    public VitImages(ModelConfig config)
    {
        ChannelCount = config.GetSize("num_channels", 3);
        (Height, Width) = ReadPair(config, "image_size", 224);
        (PatchHeight, PatchWidth) = ReadPair(config, "patch_size", 16);
        if (Height < PatchHeight || Width < PatchWidth)
        {
            throw config.Invalid("patch_size", $"is {PatchHeight}×{PatchWidth}, larger than the image of {Height}×{Width}");
        }
    }

    /// <summary>Color channels.</summary>
    public int ChannelCount { get; }

    /// <summary>Height in pixels.</summary>
    public int Height { get; }

    /// <summary>Width in pixels.</summary>
    public int Width { get; }

    /// <summary>Height of a patch in pixels.</summary>
    public int PatchHeight { get; }

    /// <summary>Width of a patch in pixels.</summary>
    public int PatchWidth { get; }

    /// <summary>Patches of an image; pixels left over at its edges belong to none.</summary>
    public int PatchCount => Height / PatchHeight * (Width / PatchWidth);

    /// <summary>Refuses images of another size: position embeddings are those of the checkpoint's, and are not interpolated.</summary>
    /// <param name="pixelValues">Images; floating point [batch, channels, height, width] is required.</param>
    public void Check(Tensor pixelValues)
    {
        ArgumentNullException.ThrowIfNull(pixelValues);
        bool fits = pixelValues.is_floating_point() && pixelValues.dim() == 4
            && pixelValues.shape.AsSpan(1).SequenceEqual([ChannelCount, Height, Width]);
        if (!fits)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument,
                $"ViTForImageClassification: the images are {pixelValues.dtype} [{string.Join(", ", pixelValues.shape)}], not floating point [batch, {ChannelCount}, {Height}, {Width}].",
                "Resize and normalize the images as the model's preprocessor_config.json says; position embeddings are not interpolated to other sizes.");
        }
    }

    // One number for a square, or height and width.
    private static (int Height, int Width) ReadPair(ModelConfig config, string key, int defaultValue)
    {
        IReadOnlyList<int> values = config.Has(key) ? config.GetInts(key) : [defaultValue];
        return values.Count is 1 or 2 && values.All(value => value > 0)
            ? (values[0], values[^1])
            : throw config.Invalid(key, $"is {string.Join(", ", values)}, not one or two positive numbers");
    }
}

/// <summary>A class token and one vector for each patch, plus position embeddings.</summary>
internal sealed class VitEmbeddings : nn.Module<Tensor, Tensor>, IParameterOwner
{
    private const string ClassTokenName = "cls_token";
    private const string PositionsName = "position_embeddings";

    private readonly Conv2d _patches;
    private readonly double _dropout;

    // Moving the module to another device or type puts new parameters into the fields, under these names.
    [ComponentName(Name = ClassTokenName)]
    private Parameter _classToken;

    [ComponentName(Name = PositionsName)]
    private Parameter _positions;

    /// <summary>Creates parameters whose values are undefined until they are loaded.</summary>
    public VitEmbeddings(VitImages images, StackSettings stack)
        : base(nameof(VitEmbeddings))
    {
        _dropout = stack.MlpDropout;
        _classToken = Create(ClassTokenName, 1);
        _positions = Create(PositionsName, images.PatchCount + 1);

        // A patch becomes a vector by a convolution whose kernel and stride are the patch.
        (long, long) patch = (images.PatchHeight, images.PatchWidth);
        _patches = this.Place(
            "patch_embeddings.projection",
            nn.Conv2d(images.ChannelCount, stack.HiddenSize, patch, stride: patch, device: stack.Options.Device, dtype: stack.Options.DType));

        Parameter Create(string name, long count)
        {
            Tensor values = empty(1, count, stack.HiddenSize, device: stack.Options.Device, dtype: stack.Options.DType);
            Parameter parameter = (Parameter)nn.Parameter(values).DetachFromDisposeScope();
            register_parameter(name, parameter);
            return parameter;
        }
    }

    /// <summary>Images [batch, channels, height, width] in any floating-point type → [batch, patches + 1, hidden] in the model's.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor patches = _patches.call(input.to(_patches.weight.dtype)).flatten(2).transpose(1, 2);
        Tensor x = cat([_classToken.expand(patches.shape[0], -1, -1), patches], 1) + _positions;
        return x.WithDropout(_dropout, training).MoveToOuterDisposeScope();
    }

    /// <inheritdoc/>
    public void SetParameter(string name, Parameter parameter)
    {
        switch (name)
        {
            case ClassTokenName:
                Replace(ref _classToken, name, parameter);
                break;
            case PositionsName:
                Replace(ref _positions, name, parameter);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(name), name, $"The embeddings have a {ClassTokenName} and {PositionsName}.");
        }
    }

    /// <summary>Everything is registered by the constructor.</summary>
    protected override void RegisterComponents()
    {
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
