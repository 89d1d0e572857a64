namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>
/// What a scheduler_config.json says, read for one kind of scheduler as diffusers' <c>from_config</c> reads it: keys that the kind does not
/// know belong to another one and are passed over, absent keys take the kind's own defaults, and a value that is not built is an error.
/// PNDM made from the settings of another kind skips Runge-Kutta, as Stable Diffusion's own PNDM does.
/// </summary>
public sealed record SchedulerSettings
{
    /// <summary>Name of the file.</summary>
    public const string FileName = "scheduler_config.json";

    /// <summary>Which scheduler the settings are for.</summary>
    public required SchedulerKind Kind { get; init; }

    /// <summary>Timesteps of training.</summary>
    public int TrainTimesteps { get; init; } = 1000;

    /// <summary>Variance of the noise added in each timestep of training, β, one a timestep.</summary>
    public required IReadOnlyList<float> Betas { get; init; }

    /// <summary>What the network predicts.</summary>
    public PredictionType Prediction { get; init; }

    /// <summary>Which timesteps are visited.</summary>
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
    /// <exception cref="Core.LoKrException"><see cref="Core.ErrorIds.ModelConfigUnsupported"/> for another class.</exception>
    public static SchedulerKind KindOf(ModelConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        string name = config.GetString("_class_name");
        SchedulerKind[] found = [.. Enum.GetValues<SchedulerKind>().Where(kind => ClassOf(kind) == name)];
        return found.Length == 1
            ? found[0]
            : throw config.Unsupported("_class_name", $"is {name}; name one of {string.Join(", ", Enum.GetNames<SchedulerKind>())} in its place (-Scheduler)");
    }

    /// <summary>Reads a configuration for a kind of scheduler.</summary>
    /// <param name="config">The scheduler_config.json.</param>
    /// <param name="kind">The kind; null for the one it names.</param>
    /// <exception cref="Core.LoKrException"><see cref="Core.ErrorIds.ModelConfigUnsupported"/> or <see cref="Core.ErrorIds.ModelConfigInvalid"/>, naming the key.</exception>
    public static SchedulerSettings Read(ModelConfig config, SchedulerKind? kind = null)
    {
        ArgumentNullException.ThrowIfNull(config);
        SchedulerKind chosen = kind ?? KindOf(config);
        RefuseUnbuilt(config, chosen);
        bool zeroTerminal = chosen != SchedulerKind.PNDM && config.GetBool("rescale_betas_zero_snr", false);
        int timesteps = config.GetSize("num_train_timesteps", 1000);
        return new SchedulerSettings
        {
            Kind = chosen,
            TrainTimesteps = timesteps,
            Betas = BetaSchedule.Read(config, timesteps, zeroTerminal),
            ZeroTerminalSnr = zeroTerminal,
            Prediction = Choice(config, "prediction_type", PredictionType.Epsilon, ("epsilon", PredictionType.Epsilon), ("v_prediction", PredictionType.Velocity)),
            Spacing = ReadSpacing(config, chosen),
            StepsOffset = config.GetInt("steps_offset", 0)!.Value,
            SetAlphaToOne = config.GetBool("set_alpha_to_one", chosen == SchedulerKind.DDIM),
            ClipRange = config.GetBool("clip_sample", true) ? config.GetDouble("clip_sample_range", 1) : null,
            SkipRungeKutta = config.GetBool("skip_prk_steps", config.Has("_class_name") && !IsFor(config, SchedulerKind.PNDM)),
            LargeVariance = chosen == SchedulerKind.DDPM
                && Choice(config, "variance_type", false, ("fixed_small", false), ("fixed_small_log", false), ("fixed_large", true)),
            LogLinearSigmas = chosen == SchedulerKind.Euler && Choice(config, "interpolation_type", false, ("linear", false), ("log_linear", true)),
            EndsAtSmallestSigma = chosen == SchedulerKind.Euler && Choice(config, "final_sigmas_type", false, ("zero", false), ("sigma_min", true)),
        };
    }

    /// <summary>
    /// The spacing of the file, unless it is only the default of the scheduler that the file is for: then another kind has its own default, as
    /// it has when diffusers makes it from a scheduler whose spacing nobody chose.
    /// </summary>
    private static TimestepSpacing ReadSpacing(ModelConfig config, SchedulerKind kind)
    {
        TimestepSpacing spacing = Choice(
            config,
            "timestep_spacing",
            DefaultSpacing(kind),
            ("linspace", TimestepSpacing.Linspace),
            ("leading", TimestepSpacing.Leading),
            ("trailing", TimestepSpacing.Trailing));
        SchedulerKind? other = Enum.GetValues<SchedulerKind>().Cast<SchedulerKind?>().FirstOrDefault(own => own != kind && IsFor(config, own!.Value));
        return other is SchedulerKind own && spacing == DefaultSpacing(own) ? DefaultSpacing(kind) : spacing;
    }

    private static TimestepSpacing DefaultSpacing(SchedulerKind kind) => kind == SchedulerKind.Euler ? TimestepSpacing.Linspace : TimestepSpacing.Leading;

    private static bool IsFor(ModelConfig config, SchedulerKind kind) => config.GetString("_class_name", null) == ClassOf(kind);

    private static string ClassOf(SchedulerKind kind) => kind == SchedulerKind.Euler ? "EulerDiscreteScheduler" : $"{kind}Scheduler";

    private static void RefuseUnbuilt(ModelConfig config, SchedulerKind kind)
    {
        string[] flags = kind switch
        {
            SchedulerKind.Euler => ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"],
            SchedulerKind.PNDM => [],
            _ => ["thresholding"],
        };
        if (flags.FirstOrDefault(flag => config.GetBool(flag, false)) is string flag)
        {
            throw config.Unsupported(flag, "is true, which is not built");
        }

        if (kind == SchedulerKind.Euler && config.GetString("timestep_type", "discrete") is not "discrete" and string type)
        {
            throw config.Unsupported("timestep_type", $"is '{type}'; only discrete timesteps are built");
        }
    }

    private static T Choice<T>(ModelConfig config, string key, T fallback, params ReadOnlySpan<(string Name, T Value)> choices)
    {
        if (config.GetString(key, null) is not string given)
        {
            return fallback;
        }

        string known = "";
        foreach ((string name, T value) in choices)
        {
            if (name == given)
            {
                return value;
            }

            known += known.Length == 0 ? name : $", {name}";
        }

        throw config.Unsupported(key, $"is '{given}'; only {known} are built");
    }
}
