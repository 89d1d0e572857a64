using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
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
    private readonly VaeCoder _encoder;

    [ComponentName(Name = "decoder")]
    private readonly VaeCoder _decoder;

    [ComponentName(Name = "quant_conv")]
    private readonly Conv2d? _quant;

    [ComponentName(Name = "post_quant_conv")]
    private readonly Conv2d? _postQuant;

    private readonly VaeSettings _settings;

    private AutoencoderKL(ModelConfig config, VaeSettings settings)
        : base(ClassName)
    {
        Config = config.ToJsonObject();
        Config["_class_name"] = ClassName;
        _settings = settings;
        _encoder = VaeCoder.Encoder(settings);
        _decoder = VaeCoder.Decoder(settings);
        _quant = settings.HasQuantConvolution ? settings.Convolution(settings.LatentChannels * 2, settings.LatentChannels * 2, 1) : null;
        _postQuant = settings.HasPostQuantConvolution ? settings.Convolution(settings.LatentChannels, settings.LatentChannels, 1) : null;
        RegisterComponents();
    }

    /// <inheritdoc/>
    public string ModelType => ClassName;

    /// <inheritdoc/>
    public string Architecture => ClassName;

    /// <inheritdoc/>
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <summary>Factor that latents are multiplied by for the UNet, and divided by before they are decoded.</summary>
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

/// <summary>The encoding of images by an autoencoder: a normal distribution for each value of the latents, not yet scaled for the UNet.</summary>
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

/// <summary>The encoder, from images to the moments of their latents, or the decoder back: blocks, with the lowest resolution after or before them.</summary>
internal sealed class VaeCoder : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "conv_in")]
    private readonly Conv2d _in;

    [ComponentName(Name = "down_blocks")]
    private readonly ModuleList<VaeBlock>? _down;

    [ComponentName(Name = "up_blocks")]
    private readonly ModuleList<VaeBlock>? _up;

    [ComponentName(Name = "mid_block")]
    private readonly VaeMidBlock _mid;

    [ComponentName(Name = "conv_norm_out")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "conv_out")]
    private readonly Conv2d _out;

    private readonly Func<Tensor, Tensor> _activate;

    private VaeCoder(VaeSettings settings, bool encodes)
        : base(encodes ? "Encoder" : "Decoder")
    {
        int last = settings.Channels.Count - 1;
        int wide = settings.Channels[last];
        int narrow = settings.Channels[0];
        IEnumerable<int> levels = Enumerable.Range(0, settings.Channels.Count);
        _activate = settings.Activate;
        _in = encodes ? settings.Convolution(settings.InChannels, narrow, 3) : settings.Convolution(settings.LatentChannels, wide, 3);
        _down = encodes ? new ModuleList<VaeBlock>([.. levels.Select(level => VaeBlock.Down(settings, level))]) : null;
        _up = encodes ? null : new ModuleList<VaeBlock>([.. levels.Select(level => VaeBlock.Up(settings, last - level))]);
        _mid = new VaeMidBlock(settings);
        _norm = settings.Norm(encodes ? wide : narrow);
        _out = encodes ? settings.Convolution(wide, settings.LatentChannels * 2, 3) : settings.Convolution(narrow, settings.OutChannels, 3);
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → [batch, 2·latent channels, height/factor, width/factor].</summary>
    public static VaeCoder Encoder(VaeSettings settings) => new(settings, encodes: true);

    /// <summary>[batch, latent channels, height, width] → [batch, channels, factor·height, factor·width].</summary>
    public static VaeCoder Decoder(VaeSettings settings) => new(settings, encodes: false);

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _in.call(input);
        if (_up is not null)
        {
            x = x.Then(_mid.call);
        }

        foreach (VaeBlock block in _down ?? _up!)
        {
            x = x.Then(block.call);
        }

        if (_down is not null)
        {
            x = x.Then(_mid.call);
        }

        return x.Then(_norm.call).Then(_activate).Then(_out.call).MoveToOuterDisposeScope();
    }
}

/// <summary>One resolution of the encoder or decoder: residual blocks, then half or twice the height and width unless it is the last.</summary>
internal sealed class VaeBlock : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "downsamplers")]
    private readonly ModuleList<Downsample2D>? _downsamplers;

    [ComponentName(Name = "upsamplers")]
    private readonly ModuleList<Upsample2D>? _upsamplers;

    private VaeBlock(string name, VaeSettings settings, int layers, int before, int channels, Downsample2D? downsampler, Upsample2D? upsampler)
        : base(name)
    {
        _resnets = new ModuleList<ResnetBlock2D>([.. Enumerable.Range(0, layers).Select(layer => settings.Resnet(layer == 0 ? before : channels, channels))]);
        _downsamplers = downsampler is null ? null : new ModuleList<Downsample2D>(downsampler);
        _upsamplers = upsampler is null ? null : new ModuleList<Upsample2D>(upsampler);
        RegisterComponents();
    }

    /// <summary>[batch, channels before, height, width] → [batch, channels, height/2, width/2].</summary>
    /// <param name="settings">Of the autoencoder.</param>
    /// <param name="level">Index among the resolutions, the highest first.</param>
    public static VaeBlock Down(VaeSettings settings, int level)
    {
        int channels = settings.Channels[level];
        return new VaeBlock("DownEncoderBlock2D", settings, settings.LayerCount, settings.Channels[Math.Max(level - 1, 0)], channels,
            level < settings.Channels.Count - 1 ? new Downsample2D(channels, padding: 0, settings.Device, settings.DType) : null, null);
    }

    /// <summary>[batch, channels before, height, width] → [batch, channels, 2·height, 2·width].</summary>
    /// <param name="settings">Of the autoencoder.</param>
    /// <param name="level">Index among the resolutions, the highest first.</param>
    public static VaeBlock Up(VaeSettings settings, int level)
    {
        int channels = settings.Channels[level];
        return new VaeBlock("UpDecoderBlock2D", settings, settings.LayerCount + 1, settings.Channels[Math.Min(level + 1, settings.Channels.Count - 1)], channels,
            null, level > 0 ? new Upsample2D(channels, settings.Device, settings.DType) : null);
    }

    /// <inheritdoc/>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = input.alias();
        foreach (ResnetBlock2D block in _resnets)
        {
            x = x.Then(y => block.call(y, null));
        }

        x = _downsamplers is null ? x : x.Then(_downsamplers[0].call);
        x = _upsamplers is null ? x : x.Then(y => _upsamplers[0].call(y, (y.shape[2] * 2, y.shape[3] * 2)));
        return x.MoveToOuterDisposeScope();
    }
}

/// <summary>The lowest resolution: attention, where there is any, between two residual blocks.</summary>
internal sealed class VaeMidBlock : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<AttentionLayer>? _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    public VaeMidBlock(VaeSettings settings)
        : base("UNetMidBlock2D")
    {
        int channels = settings.Channels[^1];
        _attentions = settings.HasMidAttention ? new ModuleList<AttentionLayer>(settings.MidAttention()) : null;
        _resnets = new ModuleList<ResnetBlock2D>(settings.Resnet(channels, channels), settings.Resnet(channels, channels));
        RegisterComponents();
    }

    /// <summary>[batch, channels, height, width] → the same shape.</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _resnets[0].call(input, null);
        x = _attentions is null ? x : x.Then(y => _attentions[0].call(y, null));
        return x.Then(y => _resnets[1].call(y, null)).MoveToOuterDisposeScope();
    }
}
