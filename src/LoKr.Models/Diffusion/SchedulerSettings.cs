using LoKr.Core.Configuration;
using LoKr.Core.Runtime;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>
/// The settings in a scheduler_config.json, read for one kind of scheduler as diffusers' <c>from_config</c> does: keys of other kinds are ignored,
/// absent keys have the defaults of the kind, and an unsupported value is an error. PNDM with the settings of another kind skips Runge-Kutta, as
/// Stable Diffusion's own PNDM does.
/// </summary>
public sealed record SchedulerSettings
{
    private const int MostTimesteps = 100_000;

    /// <summary>Name of the file.</summary>
    public const string FileName = "scheduler_config.json";

    /// <summary>Scheduler of the settings.</summary>
    public required SchedulerKind Kind { get; init; }

    /// <summary>Timesteps of training.</summary>
    public int TrainTimesteps { get; init; } = 1000;

    /// <summary>Variance of the noise added in each timestep of training, β, one a timestep.</summary>
    public required IReadOnlyList<float> Betas { get; init; }

    /// <summary>Prediction of the network.</summary>
    public PredictionType Prediction { get; init; }

    /// <summary>Timesteps that a run visits.</summary>
    public TimestepSpacing Spacing { get; init; } = TimestepSpacing.Leading;

    /// <summary>Added to every timestep of leading spacing.</summary>
    public int StepsOffset { get; init; }

    /// <summary>Whether the last step goes to ᾱ = 1 (no noise at all); otherwise to that of timestep 0. DDIM and PNDM.</summary>
    public bool SetAlphaToOne { get; init; }

    /// <summary>Bound of the predicted sample, or null for none. DDIM and DDPM.</summary>
    public double? ClipRange { get; init; }

    /// <summary>Whether PNDM starts with multi-step formulas of rising order in place of Runge-Kutta.</summary>
    public bool SkipRungeKutta { get; init; }

    /// <summary>Whether the noise of a DDPM step has the variance β in place of the posterior's.</summary>
    public bool LargeVariance { get; init; }

    /// <summary>Whether sigmas of Euler are evenly spaced in their logarithm, in place of being those of the timesteps.</summary>
    public bool LogLinearSigmas { get; init; }

    /// <summary>Whether Euler ends at the smallest sigma in place of 0.</summary>
    public bool EndsAtSmallestSigma { get; init; }

    /// <summary>Whether the betas were rescaled so that the last timestep holds no signal.</summary>
    public bool ZeroTerminalSnr { get; init; }

    /// <summary>The kind that a configuration names as <c>_class_name</c>.</summary>
    /// <exception cref="Core.Errors.LoKrException"><see cref="Core.Errors.ErrorIds.ModelConfigUnsupported"/> for another class.</exception>
    public static SchedulerKind KindOf(ModelConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        string name = config.GetString("_class_name");
        SchedulerKind[] found = [.. Enum.GetValues<SchedulerKind>().Where(kind => ClassOf(kind) == name)];
        return found.Length == 1
            ? found[0]
            : throw config.Unsupported("_class_name", $"is {name}; supported are {string.Join(", ", Enum.GetNames<SchedulerKind>())}, one of which may be chosen instead");
    }

    /// <summary>Reads a configuration for a kind of scheduler.</summary>
    /// <param name="config">The scheduler_config.json.</param>
    /// <param name="kind">The kind; null for the one it names.</param>
    /// <exception cref="Core.Errors.LoKrException"><see cref="Core.Errors.ErrorIds.ModelConfigUnsupported"/> or <see cref="Core.Errors.ErrorIds.ModelConfigInvalid"/>, naming the key.</exception>
    public static SchedulerSettings Read(ModelConfig config, SchedulerKind? kind = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        SchedulerKind chosen = kind ?? KindOf(config);
        RefuseUnsupported(config, chosen);
        bool zeroTerminal = chosen != SchedulerKind.PNDM && config.GetBool("rescale_betas_zero_snr", false);
        int timesteps = config.GetSize("num_train_timesteps", 1000);
        if (timesteps > MostTimesteps)
        {
            throw config.Invalid("num_train_timesteps", $"is {timesteps}; {MostTimesteps} are the most that are supported");
        }

        return new SchedulerSettings
        {
            Kind = chosen,
            TrainTimesteps = timesteps,
            Betas = BetaSchedule.Read(config, timesteps, zeroTerminal),
            ZeroTerminalSnr = zeroTerminal,
            Prediction = config.GetChoice("prediction_type", PredictionType.Epsilon, ("epsilon", PredictionType.Epsilon), ("v_prediction", PredictionType.Velocity)),
            Spacing = ReadSpacing(config, chosen),
            StepsOffset = config.GetInt("steps_offset", 0),
            SetAlphaToOne = config.GetBool("set_alpha_to_one", chosen == SchedulerKind.DDIM),
            ClipRange = config.GetBool("clip_sample", true) ? config.GetDouble("clip_sample_range", 1) : null,
            SkipRungeKutta = config.GetBool("skip_prk_steps", config.Has("_class_name") && !IsFor(config, SchedulerKind.PNDM)),
            LargeVariance = chosen == SchedulerKind.DDPM
                && config.GetChoice("variance_type", false, ("fixed_small", false), ("fixed_small_log", false), ("fixed_large", true)),
            LogLinearSigmas = chosen == SchedulerKind.Euler && config.GetChoice("interpolation_type", false, ("linear", false), ("log_linear", true)),
            EndsAtSmallestSigma = chosen == SchedulerKind.Euler && config.GetChoice("final_sigmas_type", false, ("zero", false), ("sigma_min", true)),
        };
    }

    /// <summary>
    /// The spacing of the file, unless that is only the default of the file's own scheduler: another kind then has its own default, as in diffusers
    /// for a scheduler with a default spacing.
    /// </summary>
    private static TimestepSpacing ReadSpacing(ModelConfig config, SchedulerKind kind)
    {
        TimestepSpacing spacing = config.GetChoice("timestep_spacing",
            DefaultSpacing(kind),
            ("linspace", TimestepSpacing.Linspace),
            ("leading", TimestepSpacing.Leading),
            ("trailing", TimestepSpacing.Trailing));
        SchedulerKind? other = Enum.GetValues<SchedulerKind>().Cast<SchedulerKind?>().FirstOrDefault(own => own != kind && IsFor(config, own!.Value));
        return other is SchedulerKind own && spacing == DefaultSpacing(own) ? DefaultSpacing(kind) : spacing;
    }

    private static TimestepSpacing DefaultSpacing(SchedulerKind kind) => kind == SchedulerKind.Euler ? TimestepSpacing.Linspace : TimestepSpacing.Leading;

    private static bool IsFor(ModelConfig config, SchedulerKind kind) => config.FindString("_class_name") == ClassOf(kind);

    private static string ClassOf(SchedulerKind kind) => kind == SchedulerKind.Euler ? "EulerDiscreteScheduler" : $"{kind}Scheduler";

    private static void RefuseUnsupported(ModelConfig config, SchedulerKind kind)
    {
        string[] flags = kind switch
        {
            SchedulerKind.Euler => ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"],
            SchedulerKind.PNDM => [],
            _ => ["thresholding"],
        };
        if (flags.FirstOrDefault(flag => config.GetBool(flag, false)) is string flag)
        {
            throw config.Unsupported(flag, "is true, which is not supported");
        }

        if (kind == SchedulerKind.Euler && config.GetString("timestep_type", "discrete") is not "discrete" and string type)
        {
            throw config.Unsupported("timestep_type", $"is '{type}'; only discrete timesteps are supported");
        }
    }
}

/// <summary>Prediction of the network (<c>prediction_type</c>).</summary>
public enum PredictionType
{
    /// <summary>The noise that was added: <c>epsilon</c>.</summary>
    Epsilon,

    /// <summary>The velocity √ᾱ·noise − √(1−ᾱ)·sample (Salimans and Ho, arXiv:2202.00512): <c>v_prediction</c>.</summary>
    Velocity,
}

/// <summary>Selection of the training timesteps that a run visits (Lin et al., arXiv:2305.08891, table 2).</summary>
public enum TimestepSpacing
{
    /// <summary>Evenly from the first to the last one.</summary>
    Linspace,

    /// <summary>Multiples of a whole stride, counted from 0.</summary>
    Leading,

    /// <summary>Multiples of a stride, counted from the end.</summary>
    Trailing,
}

/// <summary>The timesteps that a number of steps visits, largest first, rounded as numpy does.</summary>
internal static class TimestepPlan
{
    /// <summary>Unrounded timesteps in the order of sampling.</summary>
    public static double[] Create(SchedulerSettings settings, int steps)
    {
        int train = settings.TrainTimesteps;
        switch (settings.Spacing)
        {
            case TimestepSpacing.Linspace:
                double gap = steps == 1 ? 0 : (train - 1.0) / (steps - 1);
                return [.. Enumerable.Range(0, steps).Select(i => i == steps - 1 && steps > 1 ? train - 1.0 : i * gap).Reverse()];
            case TimestepSpacing.Leading:
                int stride = train / steps;
                return [.. Enumerable.Range(0, steps).Select(i => (double)((i * stride) + settings.StepsOffset)).Reverse()];
            default:
                double ratio = (double)train / steps;
                return [.. Enumerable.Range(0, (int)Math.Ceiling(train / ratio)).Select(i => Math.Round(train - (i * ratio)) - 1)];
        }
    }

    /// <summary>Timesteps rounded to whole ones, halves to even.</summary>
    public static double[] Whole(SchedulerSettings settings, int steps) => [.. Create(settings, steps).Select(timestep => Math.Round(timestep))];
}

/// <summary>The betas of a scheduler configuration, computed in float32 as diffusers computes them, so that every later figure agrees.</summary>
internal static class BetaSchedule
{
    private const double LargestBeta = 0.999;

    /// <summary>One beta a training timestep.</summary>
    public static float[] Read(ModelConfig config, int timesteps, bool zeroTerminalSnr)
    {
        TorchRuntime.EnsureLoaded();
        using DisposeScope scope = NewDisposeScope();
        using IDisposable noGrad = no_grad();
        Tensor betas = Compute(config, timesteps);
        return (zeroTerminalSnr ? WithoutFinalSignal(betas) : betas).data<float>().ToArray();
    }

    private static Tensor Compute(ModelConfig config, int timesteps)
    {
        double start = config.GetDouble("beta_start", 0.0001);
        double end = config.GetDouble("beta_end", 0.02);
        if (config.GetDoubles("trained_betas") is { Count: > 0 } given)
        {
            return given.Count == timesteps
                ? tensor(given.Select(beta => (float)beta).ToArray())
                : throw config.Invalid("trained_betas", $"has {given.Count} values for {timesteps} timesteps");
        }

        foreach ((string key, double value) in (ReadOnlySpan<(string, double)>)[("beta_start", start), ("beta_end", end)])
        {
            if (value is not (> 0 and < 1))
            {
                throw config.Invalid(key, string.Create(System.Globalization.CultureInfo.InvariantCulture, $"is {value}, not between 0 and 1"));
            }
        }

        return (config.FindString("beta_schedule") ?? "linear") switch
        {
            "linear" => linspace(start, end, timesteps, dtype: ScalarType.Float32),
            "scaled_linear" => linspace(Math.Sqrt(start), Math.Sqrt(end), timesteps, dtype: ScalarType.Float32).square(),
            "squaredcos_cap_v2" => tensor(Enumerable.Range(0, timesteps)
                .Select(i => (float)Math.Min(1 - (CosineAlpha((i + 1.0) / timesteps) / CosineAlpha((double)i / timesteps)), LargestBeta))
                .ToArray()),
            string other => throw config.Unsupported("beta_schedule", $"is '{other}'; only linear, scaled_linear and squaredcos_cap_v2 are supported"),
        };
    }

    /// <summary>ᾱ of the cosine schedule (Nichol and Dhariwal, arXiv:2102.09672) at a share of the timesteps.</summary>
    private static double CosineAlpha(double share)
    {
        double cosine = Math.Cos((share + 0.008) / 1.008 * Math.PI / 2);
        return cosine * cosine;
    }

    /// <summary>Shifts and scales √ᾱ so that its last value is 0 and its first stays (arXiv:2305.08891, algorithm 1).</summary>
    private static Tensor WithoutFinalSignal(Tensor betas)
    {
        Tensor root = (1 - betas).cumprod(0).sqrt();
        (Tensor first, Tensor last) = (root[0], root[-1]);
        Tensor alphas = ((root - last) * (first / (first - last))).square();
        return 1 - cat([alphas[..1], alphas[1..] / alphas[..^1]]);
    }
}
