using System.Text.Json.Nodes;
using LoKr.Core;
using LoKr.Core.Modeling;
using LoKr.Models.StableDiffusion.Vae;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>
/// The autoencoder between pictures and latents (Kingma &amp; Welling, arXiv:1312.6114) as diffusers' <c>AutoencoderKL</c>. Modules and
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

    /// <summary>Height and width of a picture over those of its latents.</summary>
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

    /// <summary>Encodes pictures.</summary>
    /// <param name="images">Pictures [batch, 3, height, width] between −1 and 1; height and width are multiples of <see cref="DownsampleFactor"/>.</param>
    /// <returns>Mean and variance of the latents [batch, latent channels, height/factor, width/factor], not scaled.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public LatentDistribution Encode(Tensor images)
    {
        Check(images, _settings.InChannels, DownsampleFactor, "pictures");
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
    /// <returns>Pictures [batch, 3, factor·height, factor·width], about between −1 and 1.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public Tensor Decode(Tensor latents)
    {
        Check(latents, LatentChannels, 1, "latents");
        using DisposeScope scope = NewDisposeScope();
        Tensor x = latents.to(_decoder.parameters().First().dtype);
        return _decoder.call(_postQuant is null ? x : _postQuant.call(x)).MoveToOuterDisposeScope();
    }

    /// <summary>Pictures to the mean of their latents and back.</summary>
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
                "Crop or scale pictures to such a size first.");
        }
    }
}
