using LoKr.Core.Configuration;
using LoKr.Models.Families;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>The configuration of an autoencoder, checked.</summary>
internal sealed record VaeSettings
{
    private const double Epsilon = 1e-6;

    private static readonly HashSet<string> s_known = new(StringComparer.Ordinal)
    {
        "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block", "act_fn", "latent_channels",
        "norm_num_groups", "sample_size", "scaling_factor", "force_upcast", "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention",
    };

    private static readonly Dictionary<string, string> s_only = new(StringComparer.Ordinal)
    {
        ["shift_factor"] = "null",
        ["latents_mean"] = "null",
        ["latents_std"] = "null",
    };

    /// <summary>Reads and checks a configuration.</summary>
    public VaeSettings(ModelConfig config, ModelBuildOptions options)
    {
        DiffusersOptions.Check(config, s_known, s_only);
        Device = options.Device;
        DType = options.DType;
        int downBlocks = DiffusersOptions.BlockTypes(config, "down_block_types", ["DownEncoderBlock2D"], "DownEncoderBlock2D").Count;
        int upBlocks = DiffusersOptions.BlockTypes(config, "up_block_types", ["UpDecoderBlock2D"], "UpDecoderBlock2D").Count;
        Channels = DiffusersOptions.Channels(config, downBlocks, upBlocks, [64]);
        InChannels = config.GetSize("in_channels", 3);
        OutChannels = config.GetSize("out_channels", 3);
        LatentChannels = config.GetSize("latent_channels", 4);
        LayerCount = config.GetSize("layers_per_block", 1);
        GroupCount = config.GetSize("norm_num_groups", 32);
        Activate = Activation.Get(config, "act_fn", "silu");
        ScalingFactor = config.GetDouble("scaling_factor", 0.18215);
        NeedsSinglePrecision = config.GetBool("force_upcast", true);
        HasQuantConvolution = config.GetBool("use_quant_conv", true);
        HasPostQuantConvolution = config.GetBool("use_post_quant_conv", true);
        HasMidAttention = config.GetBool("mid_block_add_attention", true);
        foreach (int count in Channels)
        {
            DiffusersOptions.CheckDivides(config, "norm_num_groups", GroupCount, count);
        }
    }

    public int InChannels { get; }

    public int OutChannels { get; }

    public int LatentChannels { get; }

    /// <summary>By block of the encoder; the decoder takes them from the end.</summary>
    public IReadOnlyList<int> Channels { get; }

    /// <summary>Residual blocks of each block of the encoder; the decoder has one more.</summary>
    public int LayerCount { get; }

    public int GroupCount { get; }

    public Func<Tensor, Tensor> Activate { get; }

    public double ScalingFactor { get; }

    /// <summary>Whether it overflows in half precision.</summary>
    public bool NeedsSinglePrecision { get; }

    public bool HasQuantConvolution { get; }

    public bool HasPostQuantConvolution { get; }

    public bool HasMidAttention { get; }

    public Device Device { get; }

    public ScalarType DType { get; }

    /// <summary>A residual block.</summary>
    public ResnetBlock2D Resnet(int inChannels, int outChannels) => new(new ResnetSettings
    {
        InChannels = inChannels,
        OutChannels = outChannels,
        GroupCount = GroupCount,
        NormEpsilon = Epsilon,
        Activate = Activate,
        Device = Device,
        DType = DType,
    });

    /// <summary>Attention of the pixels of the middle over each other, with one head.</summary>
    public AttentionLayer MidAttention() => new(new AttentionSettings
    {
        Channels = Channels[^1],
        ContextWidth = Channels[^1],
        HeadCount = 1,
        HasBias = true,
        GroupCount = GroupCount,
        Device = Device,
        DType = DType,
    });

    /// <summary>A group norm.</summary>
    public TorchSharp.Modules.GroupNorm Norm(int channels) => nn.GroupNorm(GroupCount, channels, Epsilon, device: Device, dtype: DType);

    /// <summary>A convolution that keeps height and width.</summary>
    public TorchSharp.Modules.Conv2d Convolution(int inChannels, int outChannels, int kernel) =>
        nn.Conv2d(inChannels, outChannels, kernel, padding: kernel / 2, device: Device, dtype: DType);
}
