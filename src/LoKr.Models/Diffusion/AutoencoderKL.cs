using System.Text.Json.Nodes;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Models.Families;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// The autoencoder between images and latents (Kingma &amp; Welling, arXiv:1312.6114) as diffusers' <c>AutoencoderKL</c>. Modules and
/// parameters have diffusers' names; checkpoints with the names of its attention before version 0.18 load too. <c>call(images)</c> encodes
/// to the mean and decodes.
/// </summary>
public sealed class AutoencoderKL : nn.Module<Tensor, Tensor>, IPretrainedModel
{
    private const string ClassName = nameof(AutoencoderKL);
    private const double SmallestLogVariance = -30;
    private const double LargestLogVariance = 20;

    [ComponentName(Name = "encoder")]
    private readonly VaeEncoder _encoder;

    [ComponentName(Name = "decoder")]
    private readonly VaeDecoder _decoder;

    [ComponentName(Name = "quant_conv")]
    private readonly Conv2d? _quant;

    [ComponentName(Name = "post_quant_conv")]
    private readonly Conv2d? _postQuant;

    private readonly VaeSettings _settings;

    private AutoencoderKL(ModelConfig config, VaeSettings settings)
        : base(ClassName)
    {
        Config = (JsonObject)config.Json.DeepClone();
        Config["_class_name"] = ClassName;
        _settings = settings;
        _encoder = new VaeEncoder(settings);
        _decoder = new VaeDecoder(settings);
        _quant = settings.HasQuantConvolution ? settings.Convolution(settings.LatentChannels * 2, settings.LatentChannels * 2, 1) : null;
        _postQuant = settings.HasPostQuantConvolution ? settings.Convolution(settings.LatentChannels, settings.LatentChannels, 1) : null;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType => ClassName;

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <inheritdoc/>
    public string? OutputEmbeddingsName => null;

    /// <inheritdoc/>
    public IReadOnlyDictionary<string, string> TiedParameters { get; } = new Dictionary<string, string>();

    /// <summary>What latents are multiplied by for the UNet, and divided by before they are decoded.</summary>
    public double ScalingFactor => _settings.ScalingFactor;

    /// <summary>Height and width of an image over those of its latents.</summary>
    public int DownsampleFactor => 1 << (_settings.Channels.Count - 1);

    /// <summary>Channels of the latents.</summary>
    public int LatentChannels => _settings.LatentChannels;

    /// <summary>Whether it overflows in half precision (<c>force_upcast</c>), so that a pipeline in float16 keeps it in float32.</summary>
    public bool NeedsSinglePrecision => _settings.NeedsSinglePrecision;

    internal static ModelArchitecture Registration { get; } = new(
        ClassName,
        ClassName,
        (config, options) => new AutoencoderKL(config, new VaeSettings(config, options)),
        new CheckpointLayout
        {
            WeightsName = "diffusion_pytorch_model",
            RenamedSuffixes = new Dictionary<string, string>
            {
                [".query.weight"] = ".to_q.weight",
                [".query.bias"] = ".to_q.bias",
                [".key.weight"] = ".to_k.weight",
                [".key.bias"] = ".to_k.bias",
                [".value.weight"] = ".to_v.weight",
                [".value.bias"] = ".to_v.bias",
                [".proj_attn.weight"] = ".to_out.0.weight",
                [".proj_attn.bias"] = ".to_out.0.bias",
            },
        })
    {
        TakesTokens = false,
    };

    /// <summary>Encodes images.</summary>
    /// <param name="images">Images [batch, 3, height, width] between −1 and 1; height and width are multiples of <see cref="DownsampleFactor"/>.</param>
    /// <returns>Mean and variance of the latents [batch, latent channels, height/factor, width/factor], not scaled.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public LatentDistribution Encode(Tensor images)
    {
        Check(images, _settings.InChannels, DownsampleFactor, "images");
        using DisposeScope scope = NewDisposeScope();
        Tensor moments = _encoder.call(images.to(_encoder.parameters().First().dtype));
        moments = _quant is null ? moments : _quant.call(moments);
        Tensor[] parts = moments.chunk(2, 1);
        return new LatentDistribution(
            parts[0].contiguous().MoveToOuterDisposeScope(),
            parts[1].clamp(SmallestLogVariance, LargestLogVariance).MoveToOuterDisposeScope());
    }

    /// <summary>Decodes latents.</summary>
    /// <param name="latents">Latents [batch, latent channels, height, width], not scaled.</param>
    /// <returns>Images [batch, 3, factor·height, factor·width], about between −1 and 1.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public Tensor Decode(Tensor latents)
    {
        Check(latents, LatentChannels, 1, "latents");
        using DisposeScope scope = NewDisposeScope();
        Tensor x = latents.to(_decoder.parameters().First().dtype);
        return _decoder.call(_postQuant is null ? x : _postQuant.call(x)).MoveToOuterDisposeScope();
    }

    /// <summary>Images to the mean of their latents and back.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        return Decode(Encode(input).Mean).MoveToOuterDisposeScope();
    }

    private static void Check(Tensor input, int channels, int factor, string what)
    {
        ArgumentNullException.ThrowIfNull(input);
        if (input.dim() != 4 || input.shape[1] != channels || input.numel() == 0 || input.shape[2] % factor != 0 || input.shape[3] % factor != 0)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument,
                $"{ClassName}: the {what} are [{string.Join(", ", input.shape)}], not [batch, {channels}, height, width]"
                + (factor == 1 ? "." : $" with height and width that are multiples of {factor}."),
                "Crop or scale images to such a size first.");
        }
    }
}

/// <summary>What an autoencoder makes of images: a normal distribution for each value of the latents, not scaled for the UNet yet.</summary>
/// <param name="Mean">Means [batch, latent channels, height, width].</param>
/// <param name="LogVariance">Logarithms of the variances, of the same shape.</param>
public sealed record LatentDistribution(Tensor Mean, Tensor LogVariance) : IDisposable
{
    /// <summary>Draws latents: mean + standard deviation · noise.</summary>
    /// <param name="generator">Source of random numbers on the CPU, so that a seed means the same on every device; null for the global one.</param>
    public Tensor Sample(Generator? generator = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor noise = empty(Mean.shape, ScalarType.Float32, CPU).normal_(0, 1, generator).to(Mean.dtype, Mean.device);
        return (Mean + ((LogVariance * 0.5).exp() * noise)).MoveToOuterDisposeScope();
    }

    /// <summary>Releases the tensors.</summary>
    public void Dispose()
    {
        Mean.Dispose();
        LogVariance.Dispose();
    }
}

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
        int blocks = DiffusersOptions.BlockTypes(config, "down_block_types", ["DownEncoderBlock2D"], "DownEncoderBlock2D").Count;
        int upBlocks = DiffusersOptions.BlockTypes(config, "up_block_types", ["UpDecoderBlock2D"], "UpDecoderBlock2D").Count;
        if (upBlocks != blocks)
        {
            throw config.Invalid("up_block_types", $"has {upBlocks} blocks, but down_block_types has {blocks}");
        }

        IReadOnlyList<int> channels = config.Has("block_out_channels") ? config.GetInts("block_out_channels") : [64];
        Channels = channels.Count == blocks && channels.All(count => count > 0)
            ? channels
            : throw config.Invalid("block_out_channels", $"is [{string.Join(", ", channels)}], not a positive number for each of {blocks} blocks");
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

    /// <summary>Whether half precision overflows.</summary>
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

    /// <summary>A group norm.</summary>
    public TorchSharp.Modules.GroupNorm Norm(int channels) => nn.GroupNorm(GroupCount, channels, Epsilon, device: Device, dtype: DType);

    /// <summary>A convolution that keeps height and width.</summary>
    public TorchSharp.Modules.Conv2d Convolution(int inChannels, int outChannels, int kernel) =>
        nn.Conv2d(inChannels, outChannels, kernel, padding: kernel / 2, device: Device, dtype: DType);
}

/// <summary>Attention of all pixels over all, with one head, added to the input.</summary>
internal sealed class VaeAttention : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "group_norm")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "to_q")]
    private readonly Linear _query;

    [ComponentName(Name = "to_k")]
    private readonly Linear _key;

    [ComponentName(Name = "to_v")]
    private readonly Linear _value;

    [ComponentName(Name = "to_out")]
    private readonly ModuleList<Linear> _output;

    public VaeAttention(VaeSettings settings)
        : base("Attention")
    {
        int channels = settings.Channels[^1];
        _norm = settings.Norm(channels);
        _query = Project();
        _key = Project();
        _value = Project();
        _output = new ModuleList<Linear>(Project());
        RegisterComponents();

        Linear Project() => nn.Linear(channels, channels, device: settings.Device, dtype: settings.DType);
    }

    /// <summary>[batch, channels, height, width] → the same shape.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor rows = _norm.call(input).flatten(2).transpose(1, 2);
        Tensor mixed = Attention.ScaledDotProduct(
            Attention.SplitHeads(_query.call(rows), 1), Attention.SplitHeads(_key.call(rows), 1), Attention.SplitHeads(_value.call(rows), 1));
        Tensor map = _output[0].call(Attention.MergeHeads(mixed)).transpose(1, 2).reshape(input.shape);
        return (map + input).MoveToOuterDisposeScope();
    }
}

/// <summary>The lowest resolution: attention, where there is any, between two residual blocks.</summary>
internal sealed class VaeMidBlock : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<VaeAttention>? _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    public VaeMidBlock(VaeSettings settings)
        : base("UNetMidBlock2D")
    {
        int channels = settings.Channels[^1];
        _attentions = settings.HasMidAttention ? new ModuleList<VaeAttention>(new VaeAttention(settings)) : null;
        _resnets = new ModuleList<ResnetBlock2D>(settings.Resnet(channels, channels), settings.Resnet(channels, channels));
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → the same shape.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _resnets[0].call(input, null);
        x = _attentions is null ? x : x.Then(_attentions[0].call);
        return x.Then(y => _resnets[1].call(y, null)).MoveToOuterDisposeScope();
    }
}

/// <summary>Images to the moments of their latents.</summary>
internal sealed class VaeEncoder : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "conv_in")]
    private readonly Conv2d _in;

    [ComponentName(Name = "down_blocks")]
    private readonly ModuleList<DownEncoderBlock2D> _blocks;

    [ComponentName(Name = "mid_block")]
    private readonly VaeMidBlock _mid;

    [ComponentName(Name = "conv_norm_out")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "conv_out")]
    private readonly Conv2d _out;

    private readonly Func<Tensor, Tensor> _activate;

    public VaeEncoder(VaeSettings settings)
        : base("Encoder")
    {
        _activate = settings.Activate;
        _in = settings.Convolution(settings.InChannels, settings.Channels[0], 3);
        _blocks = new ModuleList<DownEncoderBlock2D>([.. Enumerable.Range(0, settings.Channels.Count).Select(index => new DownEncoderBlock2D(settings, index))]);
        _mid = new VaeMidBlock(settings);
        _norm = settings.Norm(settings.Channels[^1]);
        _out = settings.Convolution(settings.Channels[^1], settings.LatentChannels * 2, 3);
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → [batch, 2·latent channels, height/factor, width/factor].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _in.call(input);
        foreach (DownEncoderBlock2D block in _blocks)
        {
            x = x.Then(block.call);
        }

        return x.Then(_mid.call).Then(_norm.call).Then(_activate).Then(_out.call).MoveToOuterDisposeScope();
    }
}

/// <summary>Latents to images.</summary>
internal sealed class VaeDecoder : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "conv_in")]
    private readonly Conv2d _in;

    [ComponentName(Name = "up_blocks")]
    private readonly ModuleList<UpDecoderBlock2D> _blocks;

    [ComponentName(Name = "mid_block")]
    private readonly VaeMidBlock _mid;

    [ComponentName(Name = "conv_norm_out")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "conv_out")]
    private readonly Conv2d _out;

    private readonly Func<Tensor, Tensor> _activate;

    public VaeDecoder(VaeSettings settings)
        : base("Decoder")
    {
        _activate = settings.Activate;
        _in = settings.Convolution(settings.LatentChannels, settings.Channels[^1], 3);
        _blocks = new ModuleList<UpDecoderBlock2D>([.. Enumerable.Range(0, settings.Channels.Count).Select(index => new UpDecoderBlock2D(settings, index))]);
        _mid = new VaeMidBlock(settings);
        _norm = settings.Norm(settings.Channels[0]);
        _out = settings.Convolution(settings.Channels[0], settings.OutChannels, 3);
        RegisterComponents();
    }

    /// <summary>[batch, latent channels, height, width] → [batch, channels, factor·height, factor·width].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _in.call(input).Then(_mid.call);
        foreach (UpDecoderBlock2D block in _blocks)
        {
            x = x.Then(block.call);
        }

        return x.Then(_norm.call).Then(_activate).Then(_out.call).MoveToOuterDisposeScope();
    }
}

/// <summary>One resolution of the encoder.</summary>
internal sealed class DownEncoderBlock2D : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "downsamplers")]
    private readonly ModuleList<Downsample2D>? _downsamplers;

    public DownEncoderBlock2D(VaeSettings settings, int index)
        : base(nameof(DownEncoderBlock2D))
    {
        int channels = settings.Channels[index];
        int before = settings.Channels[Math.Max(index - 1, 0)];
        _resnets = new ModuleList<ResnetBlock2D>([.. Enumerable.Range(0, settings.LayerCount).Select(layer => settings.Resnet(layer == 0 ? before : channels, channels))]);
        _downsamplers = index < settings.Channels.Count - 1
            ? new ModuleList<Downsample2D>(new Downsample2D(channels, padding: 0, settings.Device, settings.DType))
            : null;
        RegisterComponents();
    }

    /// <summary>[batch, channels before, height, width] → [batch, channels, height/2, width/2], the same size in the last block.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input.alias();
        foreach (ResnetBlock2D block in _resnets)
        {
            x = x.Then(y => block.call(y, null));
        }

        return (_downsamplers is null ? x : x.Then(_downsamplers[0].call)).MoveToOuterDisposeScope();
    }
}

/// <summary>One resolution of the decoder.</summary>
internal sealed class UpDecoderBlock2D : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "upsamplers")]
    private readonly ModuleList<Upsample2D>? _upsamplers;

    /// <summary>Makes the block.</summary>
    /// <param name="settings">Of the autoencoder.</param>
    /// <param name="index">Index among the decoder's blocks.</param>
    public UpDecoderBlock2D(VaeSettings settings, int index)
        : base(nameof(UpDecoderBlock2D))
    {
        int last = settings.Channels.Count - 1;
        int channels = settings.Channels[last - index];
        int before = settings.Channels[Math.Min(last - index + 1, last)];
        _resnets = new ModuleList<ResnetBlock2D>([.. Enumerable.Range(0, settings.LayerCount + 1).Select(layer => settings.Resnet(layer == 0 ? before : channels, channels))]);
        _upsamplers = index < last ? new ModuleList<Upsample2D>(new Upsample2D(channels, settings.Device, settings.DType)) : null;
        RegisterComponents();
    }

    /// <summary>[batch, channels before, height, width] → [batch, channels, 2·height, 2·width], the same size in the last block.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input.alias();
        foreach (ResnetBlock2D block in _resnets)
        {
            x = x.Then(y => block.call(y, null));
        }

        return (_upsamplers is null ? x : x.Then(y => _upsamplers[0].call(y, (y.shape[2] * 2, y.shape[3] * 2)))).MoveToOuterDisposeScope();
    }
}
