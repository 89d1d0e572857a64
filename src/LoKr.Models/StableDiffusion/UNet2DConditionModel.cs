using System.Text.Json.Nodes;
using LoKr.Core;
using LoKr.Core.Modeling;
using LoKr.Models.Shared;
using LoKr.Models.StableDiffusion.UNet;
using TorchSharp;
using TorchSharp.Modules;
using TorchSharp.Utils;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>
/// The denoiser of latent diffusion (Rombach et al., arXiv:2112.10752) as diffusers' <c>UNet2DConditionModel</c>, in the configurations of
/// Stable Diffusion 1.x, 2.x and XL: <c>call(sample, timesteps, encoderHiddenStates, added)</c> gives the predicted noise, or velocity.
/// Modules and parameters have diffusers' names.
/// </summary>
public sealed class UNet2DConditionModel : nn.Module<Tensor, Tensor, Tensor, AddedConditions?, Tensor>, IPretrainedModel
{
    private const string ClassName = nameof(UNet2DConditionModel);

    [ComponentName(Name = "conv_in")]
    private readonly Conv2d _in;

    [ComponentName(Name = "time_embedding")]
    private readonly TimestepEmbedding _time;

    [ComponentName(Name = "add_embedding")]
    private readonly TimestepEmbedding? _added;

    [ComponentName(Name = "down_blocks")]
    private readonly ModuleList<UNetDownBlock2D> _down;

    [ComponentName(Name = "up_blocks")]
    private readonly ModuleList<UNetUpBlock2D> _up;

    [ComponentName(Name = "mid_block")]
    private readonly UNetMidBlock2DCrossAttn? _mid;

    [ComponentName(Name = "conv_norm_out")]
    private readonly GroupNorm _norm;

    [ComponentName(Name = "conv_out")]
    private readonly Conv2d _out;

    private readonly UNetSettings _settings;

    private UNet2DConditionModel(ModelConfig config, UNetSettings settings)
        : base(ClassName)
    {
        Config = (JsonObject)config.Json.DeepClone();
        Config["_class_name"] = ClassName;
        _settings = settings;
        int first = settings.Channels[0];
        IEnumerable<int> blocks = Enumerable.Range(0, settings.Channels.Count);
        _in = Convolve(settings.InChannels, first, settings.InKernel);
        _time = new TimestepEmbedding(settings, settings.TimeProjection.Width, settings.TimePostActivation);
        _added = settings.AddedProjection is null ? null : new TimestepEmbedding(settings, settings.AddedWidth, postActivate: null);
        _down = new ModuleList<UNetDownBlock2D>([.. blocks.Select(index => new UNetDownBlock2D(settings, index))]);
        _up = new ModuleList<UNetUpBlock2D>([.. blocks.Select(index => new UNetUpBlock2D(settings, index))]);
        _mid = settings.HasMidBlock ? new UNetMidBlock2DCrossAttn(settings) : null;
        _norm = nn.GroupNorm(settings.GroupCount, first, settings.NormEpsilon, device: settings.Device, dtype: settings.DType);
        _out = Convolve(first, settings.OutChannels, settings.OutKernel);
        RegisterComponents();

        Conv2d Convolve(int inChannels, int outChannels, int kernel) =>
            nn.Conv2d(inChannels, outChannels, kernel, padding: kernel / 2, device: settings.Device, dtype: settings.DType);
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

    /// <summary>Height and width of the latents it was trained on; null where the configuration does not say or they differ.</summary>
    public int? SampleSize => _settings.SampleSize;

    /// <summary>Channels of the latents.</summary>
    public int InChannels => _settings.InChannels;

    /// <summary>Channels of the prediction.</summary>
    public int OutChannels => _settings.OutChannels;

    /// <summary>Width of the text's hidden states.</summary>
    public int ContextWidth => _settings.ContextWidths[0];

    /// <summary>Whether it takes the added conditions of Stable Diffusion XL.</summary>
    public bool TakesAddedConditions => _added is not null;

    internal static ModelArchitecture Registration { get; } = new(
        ClassName,
        ClassName,
        (config, options) => new UNet2DConditionModel(config, new UNetSettings(config, options)),
        new CheckpointLayout { WeightsName = "diffusion_pytorch_model" })
    {
        TakesTokens = false,
    };

    /// <summary>Predicts the noise in latents, or the velocity; the configuration of the scheduler says which the model was trained for.</summary>
    /// <param name="sample">Noisy latents [batch, channels, height, width]; any height and width.</param>
    /// <param name="timesteps">Time of each [batch], or one for all [1] or a scalar; whole or fractional.</param>
    /// <param name="encoderHiddenStates">Hidden states of the text [batch, length, width].</param>
    /// <param name="added">Conditions that Stable Diffusion XL takes beside the text; null for a UNet without them.</param>
    /// <returns>The prediction, of the shape of the sample and in the model's type.</returns>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ModelInputInvalid"/>.</exception>
    public override Tensor forward(Tensor sample, Tensor timesteps, Tensor encoderHiddenStates, AddedConditions? added)
    {
        Check(sample, timesteps, encoderHiddenStates, added);
        using DisposeScope scope = NewDisposeScope();
        ScalarType type = _in.weight.dtype;
        Tensor time = EmbedTime(timesteps.reshape(-1).expand(sample.shape[0]), added, type);
        Tensor context = encoderHiddenStates.to(type);
        Tensor x = sample.to(type);
        x = _in.call(_settings.CentersInput ? (x * 2) - 1 : x);

        List<Tensor> skips = [x];
        foreach (UNetDownBlock2D block in _down)
        {
            x = block.call(x, time, context, skips);
        }

        if (_mid is not null)
        {
            x = _mid.call(x, time, context);
        }

        Stack<Tensor> stack = new(skips);
        foreach (UNetUpBlock2D block in _up)
        {
            x = block.call(x, time, context, stack);
        }

        return x.Then(_norm.call).Then(_settings.Activate).Then(_out.call).MoveToOuterDisposeScope();
    }

    private Tensor EmbedTime(Tensor timesteps, AddedConditions? added, ScalarType type)
    {
        Tensor time = _time.call(_settings.TimeProjection.Project(timesteps).to(type));
        if (_added is not null)
        {
            Tensor ids = added!.TimeIds;
            Tensor numbers = _settings.AddedProjection!.Project(ids.reshape(-1)).reshape(ids.shape[0], -1);
            time = time + _added.call(cat([added.TextEmbeds.to(type), numbers.to(type)], -1));
        }

        return _settings.TimeActivation is null ? time : _settings.TimeActivation(time);
    }

    private void Check(Tensor sample, Tensor timesteps, Tensor context, AddedConditions? added)
    {
        ArgumentNullException.ThrowIfNull(sample);
        ArgumentNullException.ThrowIfNull(timesteps);
        ArgumentNullException.ThrowIfNull(context);
        long batch = sample.dim() > 0 ? sample.shape[0] : 0;
        string? problem =
            sample.dim() != 4 || sample.shape[1] != InChannels || sample.numel() == 0 ? $"the sample is {Shape(sample)}, not [batch, {InChannels}, height, width]"
            : timesteps.numel() != 1 && !timesteps.shape.SequenceEqual([batch]) ? $"the timesteps are {Shape(timesteps)}, not one or one for each of {batch} samples"
            : context.dim() != 3 || context.shape[0] != batch || context.shape[2] != ContextWidth ? $"the text's hidden states are {Shape(context)}, not [{batch}, length, {ContextWidth}]"
            : added is null == TakesAddedConditions ? TakesAddedConditions ? "it needs added conditions" : "it takes no added conditions"
            : added is not null && !Fit(added, batch) ? $"the added conditions are {Shape(added.TextEmbeds)} and {Shape(added.TimeIds)}, which do not make {batch} rows of {_settings.AddedWidth}"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument, $"{ClassName}: {problem}.",
                "Give latents, times and texts of one batch, made with the components of the same pipeline.");
        }

        static string Shape(Tensor tensor) => $"[{string.Join(", ", tensor.shape)}]";
    }

    private bool Fit(AddedConditions added, long batch) =>
        added.TextEmbeds.dim() == 2 && added.TimeIds.dim() == 2 && added.TextEmbeds.shape[0] == batch && added.TimeIds.shape[0] == batch
        && added.TextEmbeds.shape[1] + (added.TimeIds.shape[1] * _settings.AddedProjection!.Width) == _settings.AddedWidth;
}
