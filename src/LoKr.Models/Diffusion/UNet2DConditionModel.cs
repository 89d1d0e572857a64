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
/// The denoiser of latent diffusion (Rombach et al., arXiv:2112.10752) as diffusers' <c>UNet2DConditionModel</c>, in the configurations of
/// Stable Diffusion 1.x, 2.x and XL: <c>call(sample, timesteps, encoderHiddenStates, added)</c> returns the predicted noise or velocity.
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
        Config = config.ToJsonObject();
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
    public override string ToString() => Architecture;

    /// <inheritdoc/>
    public JsonObject Config { get; }

    /// <summary>Height and width of the latents it was trained on; null if the configuration lacks them or they differ.</summary>
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

    /// <summary>Predicts the noise in latents, or the velocity, according to the scheduler's configuration.</summary>
    /// <param name="sample">Noisy latents [batch, channels, height, width]; any height and width.</param>
    /// <param name="timesteps">Time of each [batch], or one for all [1] or a scalar; whole or fractional.</param>
    /// <param name="encoderHiddenStates">Hidden states of the text [batch, length, width].</param>
    /// <param name="added">Additional conditions of Stable Diffusion XL; null for a UNet without them.</param>
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
            : added is not null && !Fit(added, batch) ? $"the added conditions are {Shape(added.TextEmbeds)} and {Shape(added.TimeIds)}, which do not form {batch} rows of {_settings.AddedWidth}"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument, $"{ClassName}: {problem}.",
                "Pass latents, timesteps and texts of one batch, created with the components of the same pipeline.");
        }

        static string Shape(Tensor tensor) => $"[{string.Join(", ", tensor.shape)}]";
    }

    private bool Fit(AddedConditions added, long batch) =>
        added.TextEmbeds.dim() == 2 && added.TimeIds.dim() == 2 && added.TextEmbeds.shape[0] == batch && added.TimeIds.shape[0] == batch
        && added.TextEmbeds.shape[1] + (added.TimeIds.shape[1] * _settings.AddedProjection!.Width) == _settings.AddedWidth;
}

/// <summary>Additional conditions of Stable Diffusion XL's UNet (Podell et al., arXiv:2307.01952).</summary>
/// <param name="TextEmbeds">Pooled vector of each text by the second text encoder [batch, projection].</param>
/// <param name="TimeIds">Original height and width, crop from the top and the left, target height and width of each image, in pixels [batch, 6].</param>
public sealed record AddedConditions(Tensor TextEmbeds, Tensor TimeIds);

/// <summary>Two layers on the features of a time, or of other numbers.</summary>
internal sealed class TimestepEmbedding : nn.Module<Tensor, Tensor>
{
    [ComponentName(Name = "linear_1")]
    private readonly Linear _inner;

    [ComponentName(Name = "linear_2")]
    private readonly Linear _outer;

    private readonly Func<Tensor, Tensor> _activate;
    private readonly Func<Tensor, Tensor>? _postActivate;

    public TimestepEmbedding(UNetSettings settings, int inWidth, Func<Tensor, Tensor>? postActivate)
        : base(nameof(TimestepEmbedding))
    {
        _activate = settings.Activate;
        _postActivate = postActivate;
        _inner = nn.Linear(inWidth, settings.TimeWidth, device: settings.Device, dtype: settings.DType);
        _outer = nn.Linear(settings.TimeWidth, settings.TimeWidth, device: settings.Device, dtype: settings.DType);
        RegisterComponents();
    }

    /// <summary>Features [batch, features] → [batch, time width].</summary>
    public override Tensor forward(Tensor input)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor y = _outer.call(_activate(_inner.call(input)));
        return (_postActivate is null ? y : _postActivate(y)).MoveToOuterDisposeScope();
    }
}

/// <summary>Encodes numbers as sines and cosines of many frequencies (Ho et al., arXiv:2006.11239; Vaswani et al., arXiv:1706.03762).</summary>
/// <param name="Width">Number of features.</param>
/// <param name="CosinesFirst">Whether the cosines come before the sines (<c>flip_sin_to_cos</c>).</param>
/// <param name="FrequencyShift">Taken from the number of frequencies when their spacing is computed (<c>freq_shift</c>).</param>
internal sealed record TimestepProjection(int Width, bool CosinesFirst, double FrequencyShift)
{
    private const double LongestPeriod = 10000;

    /// <summary>Numbers [count] → [count, width] in float32, as diffusers computes them whatever the model's type.</summary>
    public Tensor Project(Tensor values)
    {
        using DisposeScope scope = NewDisposeScope();
        int half = Width / 2;
        Tensor exponents = arange(half, ScalarType.Float32, values.device) * (float)(-Math.Log(LongestPeriod));
        Tensor angles = values.to(ScalarType.Float32).unsqueeze(1) * (exponents / (float)(half - FrequencyShift)).exp().unsqueeze(0);
        Tensor features = CosinesFirst ? cat([angles.cos(), angles.sin()], 1) : cat([angles.sin(), angles.cos()], 1);
        return (Width % 2 == 0 ? features : nn.functional.pad(features, [0, 1])).MoveToOuterDisposeScope();
    }
}

/// <summary>One resolution on the way down: residual blocks, each with a transformer or none, and a convolution that halves height and width.</summary>
internal sealed class UNetDownBlock2D : nn.Module<Tensor, Tensor, Tensor, List<Tensor>, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<Transformer2DModel>? _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "downsamplers")]
    private readonly ModuleList<Downsample2D>? _downsamplers;

    public UNetDownBlock2D(UNetSettings settings, int index)
        : base(settings.DownBlockTypes[index])
    {
        int channels = settings.Channels[index];
        IEnumerable<int> layers = Enumerable.Range(0, settings.LayerCounts[index]);
        _attentions = settings.DownBlockTypes[index] == "CrossAttnDownBlock2D"
            ? new ModuleList<Transformer2DModel>([.. layers.Select(_ => new Transformer2DModel(settings.Transformer(index, settings.OnlyCrossAttention[index])))])
            : null;
        _resnets = new ModuleList<ResnetBlock2D>([.. layers.Select(layer =>
            new ResnetBlock2D(settings.Resnet(layer > 0 ? channels : settings.Channels[Math.Max(index - 1, 0)], channels, settings.ResnetScale)))]);
        _downsamplers = index < settings.Channels.Count - 1
            ? new ModuleList<Downsample2D>(new Downsample2D(channels, settings.DownsamplePadding, settings.Device, settings.DType))
            : null;
        RegisterComponents();
    }

    /// <summary>
    /// Features [batch, channels in, height, width], the time and the text → [batch, channels, height/2, width/2], the same size in the last block.
    /// Every layer's output is added to the list of skip connections, which owns it.
    /// </summary>
    public override Tensor forward(Tensor input, Tensor time, Tensor context, List<Tensor> skips)
    {
        Tensor x = input;
        for (int i = 0; i < _resnets.Count; i++)
        {
            Tensor next = _resnets[i].call(x, time);
            if (_attentions is not null)
            {
                using Tensor plain = next;
                next = _attentions[i].call(plain, context);
            }

            skips.Add(x = next);
        }

        if (_downsamplers is not null)
        {
            skips.Add(x = _downsamplers[0].call(x));
        }

        return x;
    }
}

/// <summary>The lowest resolution: a transformer between two residual blocks.</summary>
internal sealed class UNetMidBlock2DCrossAttn : nn.Module<Tensor, Tensor, Tensor, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<Transformer2DModel> _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    public UNetMidBlock2DCrossAttn(UNetSettings settings)
        : base(nameof(UNetMidBlock2DCrossAttn))
    {
        int channels = settings.Channels[^1];
        _attentions = new ModuleList<Transformer2DModel>(new Transformer2DModel(settings.Transformer(settings.Channels.Count - 1, onlyCrossAttention: false)));
        _resnets = new ModuleList<ResnetBlock2D>(Block(), Block());
        RegisterComponents();

        ResnetBlock2D Block() => new(settings.Resnet(channels, channels, settings.MidScale));
    }

    /// <summary>Features [batch, channels, height, width], the time and the text → features of the same shape.</summary>
    public override Tensor forward(Tensor input, Tensor time, Tensor context)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor x = _attentions[0].call(_resnets[0].call(input, time), context);
        return _resnets[1].call(x, time).MoveToOuterDisposeScope();
    }
}

/// <summary>One resolution on the way up: residual blocks, each with a skip connection and a transformer or none, and a convolution that doubles height and width.</summary>
internal sealed class UNetUpBlock2D : nn.Module<Tensor, Tensor, Tensor, Stack<Tensor>, Tensor>
{
    [ComponentName(Name = "attentions")]
    private readonly ModuleList<Transformer2DModel>? _attentions;

    [ComponentName(Name = "resnets")]
    private readonly ModuleList<ResnetBlock2D> _resnets;

    [ComponentName(Name = "upsamplers")]
    private readonly ModuleList<Upsample2D>? _upsamplers;

    /// <summary>Creates the block.</summary>
    /// <param name="settings">Of the UNet.</param>
    /// <param name="index">Index among the up blocks.</param>
    public UNetUpBlock2D(UNetSettings settings, int index)
        : base(settings.UpBlockTypes[index])
    {
        int last = settings.Channels.Count - 1;
        int level = last - index;
        int channels = settings.Channels[level];
        int before = settings.Channels[Math.Min(level + 1, last)];
        int below = settings.Channels[Math.Max(level - 1, 0)];
        int count = settings.LayerCounts[level] + 1;
        IEnumerable<int> layers = Enumerable.Range(0, count);
        _attentions = settings.UpBlockTypes[index] == "CrossAttnUpBlock2D"
            ? new ModuleList<Transformer2DModel>([.. layers.Select(_ => new Transformer2DModel(settings.Transformer(level, settings.OnlyCrossAttention[level])))])
            : null;

        // The last skip connection is the map that entered this resolution on the way down.
        _resnets = new ModuleList<ResnetBlock2D>([.. layers.Select(layer => new ResnetBlock2D(settings.Resnet(
            (layer == 0 ? before : channels) + (layer == count - 1 ? below : channels), channels, settings.ResnetScale)))]);
        _upsamplers = level > 0 ? new ModuleList<Upsample2D>(new Upsample2D(channels, settings.Device, settings.DType)) : null;
        RegisterComponents();
    }

    /// <summary>
    /// Features [batch, channels before, height, width], the time and the text → [batch, channels, 2·height, 2·width], the same size in the last block.
    /// Pops its skip connections; they and the input are disposed.
    /// </summary>
    public override Tensor forward(Tensor input, Tensor time, Tensor context, Stack<Tensor> skips)
    {
        Tensor x = input;
        for (int i = 0; i < _resnets.Count; i++)
        {
            using Tensor before = x;
            using Tensor skip = skips.Pop();
            using Tensor both = cat([before, skip], 1);
            x = _resnets[i].call(both, time);
            if (_attentions is not null)
            {
                using Tensor plain = x;
                x = _attentions[i].call(plain, context);
            }
        }

        if (_upsamplers is null)
        {
            return x;
        }

        using Tensor small = x;
        long[] size = skips.Peek().shape;
        return _upsamplers[0].call(small, (size[2], size[3]));
    }
}
