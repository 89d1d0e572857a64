using static TorchSharp.torch;

namespace LoKr.Models.Vit;

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
        Activation = Shared.Activation.Get(config, "hidden_act", "gelu");
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
