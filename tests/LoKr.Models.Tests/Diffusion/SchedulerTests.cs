using System.Text.Json.Nodes;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.Models.Families;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Models.Tests.Diffusion;

/// <summary>Schedulers against the forward process they undo: a network that knows the noise leads along its exact path.</summary>
public sealed class SchedulerTests
{
    private const string StableDiffusion = """
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": false, "set_alpha_to_one": false,
         "steps_offset": 1, "skip_prk_steps": true, "num_train_timesteps": 1000}
        """;

    /// <summary>Every kind, both predictions, and the settings that change the path.</summary>
    public static TheoryData<SchedulerKind, string> Paths()
    {
        TheoryData<SchedulerKind, string> rows = [];
        foreach (SchedulerKind kind in (SchedulerKind[])[SchedulerKind.DDIM, SchedulerKind.PNDM, SchedulerKind.Euler])
        {
            foreach (string change in (string[])
                ["{}", """{"prediction_type": "v_prediction"}""", """{"timestep_spacing": "trailing"}""",
                 """{"set_alpha_to_one": true}""", """{"skip_prk_steps": false, "timestep_spacing": "leading"}""",
                 """{"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "leading"}""", """{"beta_schedule": "linear"}""", """{"final_sigmas_type": "sigma_min"}"""])
            {
                rows.Add(kind, change);
            }

            // DDIM and PNDM go down a whole stride from each timestep, as in diffusers, which is not where the next one of this spacing is.
            if (kind == SchedulerKind.Euler)
            {
                rows.Add(kind, """{"timestep_spacing": "linspace"}""");
            }
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Paths))]
    public void A_network_that_knows_the_noise_leads_along_the_exact_path(SchedulerKind kind, string change)
    {
        using DisposeScope scope = NewDisposeScope();
        ModelConfig config = Config(change);
        NoiseSchedule schedule = new(SchedulerSettings.Read(config, kind));
        bool velocity = schedule.Prediction == PredictionType.Velocity;
        using Generator generator = new(3, CPU);
        Tensor clean = randn([2, 4, 8, 8], generator: generator);
        Tensor noise = randn([2, 4, 8, 8], generator: generator);

        // The multi-step formulas of PNDM weigh velocities of several timesteps, as in diffusers; one step has nothing to weigh.
        using DiffusionScheduler run = DiffusionScheduler.Create(config, velocity && kind == SchedulerKind.PNDM ? 1 : 10, kind);
        bool sigmas = kind == SchedulerKind.Euler;
        Tensor At(double timestep)
        {
            double signal = Math.Sqrt(Alpha(schedule, timestep));
            double rest = Math.Sqrt(1 - Alpha(schedule, timestep));
            return sigmas ? clean + (noise * (rest / signal)) : (clean * signal) + (noise * rest);
        }

        Tensor sample = At(run.Timesteps[0]);
        for (int i = 0; i < run.Timesteps.Count; i++)
        {
            double timestep = run.Timesteps[i];
            (double signal, double rest) = (Math.Sqrt(Alpha(schedule, timestep)), Math.Sqrt(1 - Alpha(schedule, timestep)));

            // What the network is shown has unit variance, whatever space the scheduler works in.
            Tensor input = run.ScaleInput(sample);
            TensorAssert.Close((clean * signal) + (noise * rest), input, 2e-5, $"input {i}");
            Tensor answer = velocity ? (noise * signal) - (clean * rest) : noise;
            sample = run.Step(answer, sample, () => throw new InvalidOperationException("No noise is drawn."));
        }

        bool toClean = sigmas ? !change.Contains("sigma_min", StringComparison.Ordinal) : change.Contains("set_alpha_to_one", StringComparison.Ordinal);
        TensorAssert.Close(toClean ? clean : At(0), sample, 5e-5, "end");
        Assert.Equal(run.Timesteps.Count, run.Index);
        Assert.Throws<InvalidOperationException>(() => run.Step(noise, sample, () => noise));
    }

    [Fact]
    public void Timesteps_are_those_of_the_published_settings()
    {
        Assert.Equal([801, 601, 401, 201, 1], Timesteps(SchedulerKind.DDIM, "{}", 5));
        Assert.Equal([801, 601, 601, 401, 201, 1], Timesteps(SchedulerKind.PNDM, "{}", 5));
        Assert.Equal([1], Timesteps(SchedulerKind.PNDM, "{}", 1));
        Assert.Equal([751, 626, 626, 501, 501, 376, 376, 251, 251, 126, 126, 1, 1], Timesteps(SchedulerKind.PNDM, """{"skip_prk_steps": false}""", 4));
        Assert.Equal([999, 799.2, 599.4, 399.6, 199.8, 0], Timesteps(SchedulerKind.Euler, "{}", 6).Select(t => Math.Round(t, 3)));
        Assert.Equal([999, 749, 499, 249], Timesteps(SchedulerKind.Euler, """{"timestep_spacing": "trailing"}""", 4));
        Assert.Equal([666, 333, 0], Timesteps(SchedulerKind.DDPM, """{"steps_offset": 0}""", 3));

        // Halves go to even, as in numpy: 499.5 and 500.
        Assert.Equal([999, 500, 0], Timesteps(SchedulerKind.DDIM, """{"timestep_spacing": "linspace"}""", 3));
        Assert.Equal([999, 666, 332], Timesteps(SchedulerKind.DDIM, """{"timestep_spacing": "trailing"}""", 3));
    }

    [Fact]
    public void Noise_levels_of_stable_diffusion_are_the_known_ones()
    {
        using DiffusionScheduler euler = DiffusionScheduler.Create(Config("{}"), 20, SchedulerKind.Euler);
        Assert.Equal(14.6146, euler.InitialSigma, 3);
        using DiffusionScheduler leading = DiffusionScheduler.Create(Config("""{"timestep_spacing": "leading", "steps_offset": 0}"""), 1000, SchedulerKind.Euler);
        Assert.Equal(Math.Sqrt((14.6146 * 14.6146) + 1), leading.InitialSigma, 3);
        NoiseSchedule schedule = new(SchedulerSettings.Read(Config("{}"), SchedulerKind.DDPM));
        Assert.Equal(0.0292, schedule.Sigma(0), 4);
        Assert.Equal(0.00466, schedule.Alpha(999), 5);
    }

    [Fact]
    public void Noise_velocity_target_and_weights_follow_their_formulas()
    {
        using DisposeScope scope = NewDisposeScope();
        NoiseSchedule noise = new(SchedulerSettings.Read(Config("{}"), SchedulerKind.DDPM));
        NoiseSchedule velocity = new(SchedulerSettings.Read(Config("""{"prediction_type": "v_prediction"}"""), SchedulerKind.DDPM));
        Tensor samples = randn(2, 4, 3, 3);
        Tensor drawn = randn(2, 4, 3, 3);
        int[] timesteps = [7, 940];
        double[] alphas = Alphas();
        for (int row = 0; row < 2; row++)
        {
            (double signal, double rest) = (Math.Sqrt(alphas[timesteps[row]]), Math.Sqrt(1 - alphas[timesteps[row]]));
            TensorAssert.Close((samples[row] * signal) + (drawn[row] * rest), noise.AddNoise(samples, drawn, timesteps)[row], 1e-5, "noisy");
            TensorAssert.Close((drawn[row] * signal) - (samples[row] * rest), noise.Velocity(samples, drawn, timesteps)[row], 1e-5, "velocity");
            double snr = alphas[timesteps[row]] / (1 - alphas[timesteps[row]]);
            TensorAssert.Close(Math.Min(snr, 5) / snr, noise.MinSnrWeight(timesteps[row], 5), 1e-3, "weight of noise");
            TensorAssert.Close(Math.Min(snr, 5) / (snr + 1), velocity.MinSnrWeight(timesteps[row], 5), 1e-3, "weight of velocity");
        }

        Assert.True(TensorAssert.Same(drawn, noise.Target(samples, drawn, timesteps)));
        Assert.True(TensorAssert.Same(velocity.Velocity(samples, drawn, timesteps), velocity.Target(samples, drawn, timesteps)));
    }

    [Theory]
    [InlineData("fixed_small", false)]
    [InlineData("fixed_small_log", false)]
    [InlineData("fixed_large", true)]
    public void Ddpm_adds_the_mean_and_noise_of_the_posterior(string variance, bool large)
    {
        using DisposeScope scope = NewDisposeScope();
        ModelConfig config = Config($$"""{"variance_type": "{{variance}}", "steps_offset": 0}""");
        double[] alphas = Alphas();
        using DiffusionScheduler run = DiffusionScheduler.Create(config, 4, SchedulerKind.DDPM);
        Assert.True(run.DrawsNoise);
        Tensor clean = randn(1, 4, 4, 4);
        Tensor noise = randn(1, 4, 4, 4);
        Tensor fresh = randn(1, 4, 4, 4);
        Tensor sample = (clean * Math.Sqrt(alphas[750])) + (noise * Math.Sqrt(1 - alphas[750]));

        // q(x_s | x_t, x_0) by Bayes' rule: precision is the sum of that of the prior and that of the likelihood.
        (double s, double t) = (alphas[500], alphas[750]);
        double kept = t / s;
        double posterior = 1 / ((1 / (1 - s)) + (kept / (1 - kept)));
        Tensor mean = posterior * ((clean * (Math.Sqrt(s) / (1 - s))) + (sample * (Math.Sqrt(kept) / (1 - kept))));
        Tensor expected = mean + (fresh * Math.Sqrt(large ? 1 - kept : posterior));
        TensorAssert.Close(expected, run.Step(noise, sample, () => fresh), 1e-4, variance);
    }

    [Fact]
    public void Ddpm_draws_no_noise_at_timestep_zero_and_ends_at_the_clean_sample()
    {
        using DisposeScope scope = NewDisposeScope();
        using DiffusionScheduler run = DiffusionScheduler.Create(Config("""{"steps_offset": 0}"""), 1, SchedulerKind.DDPM);
        double alpha = Alphas()[0];
        Tensor clean = randn(1, 4, 4, 4);
        Tensor noise = randn(1, 4, 4, 4);
        Tensor sample = (clean * Math.Sqrt(alpha)) + (noise * Math.Sqrt(1 - alpha));
        TensorAssert.Close(clean, run.Step(noise, sample, () => throw new InvalidOperationException("No noise is drawn.")), 1e-4, "clean");
    }

    [Fact]
    public void Predicted_samples_are_clipped_where_the_settings_say_so()
    {
        using DisposeScope scope = NewDisposeScope();
        using DiffusionScheduler run = DiffusionScheduler.Create(Config("""{"clip_sample": true, "clip_sample_range": 0.5, "set_alpha_to_one": true}"""), 1, SchedulerKind.DDIM);
        Tensor sample = full([1, 4, 2, 2], 3f);
        TensorAssert.Close(full([1, 4, 2, 2], 0.5f), run.Step(zeros(1, 4, 2, 2), sample, () => sample), 1e-6, "clipped");
    }

    [Fact]
    public void Betas_may_be_given_or_rescaled_to_no_final_signal()
    {
        NoiseSchedule given = new(SchedulerSettings.Read(Config("""{"trained_betas": [0.5, 0.5], "num_train_timesteps": 2}"""), SchedulerKind.DDPM));
        Assert.Equal(0.25, given.Alpha(1), 6);
        NoiseSchedule rescaled = new(SchedulerSettings.Read(Config("""{"rescale_betas_zero_snr": true, "prediction_type": "v_prediction"}"""), SchedulerKind.DDIM));
        Assert.Equal(0, rescaled.Alpha(999), 9);
        Assert.Equal(Alphas()[0], rescaled.Alpha(0), 5);
        using DiffusionScheduler euler = DiffusionScheduler.Create(
            Config("""{"rescale_betas_zero_snr": true, "prediction_type": "v_prediction"}"""), 3, SchedulerKind.Euler);
        Assert.Equal(Math.Sqrt((1 << 24) - 1), euler.InitialSigma, 1);
    }

    [Fact]
    public void The_kind_is_the_one_that_the_configuration_names()
    {
        Assert.Equal(SchedulerKind.DDIM, SchedulerSettings.KindOf(Config("""{"_class_name": "DDIMScheduler"}""")));
        Assert.Equal(SchedulerKind.PNDM, SchedulerSettings.KindOf(Config("""{"_class_name": "PNDMScheduler"}""")));
        Assert.Equal(SchedulerKind.Euler, SchedulerSettings.KindOf(Config("""{"_class_name": "EulerDiscreteScheduler"}""")));
        Assert.Equal(SchedulerKind.DDPM, SchedulerSettings.KindOf(Config("""{"_class_name": "DDPMScheduler"}""")));
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => SchedulerSettings.KindOf(Config("""{"_class_name": "HeunDiscreteScheduler"}""")), "HeunDiscreteScheduler", "Euler");
    }

    [Fact]
    public void Another_kind_than_the_files_takes_its_own_default_spacing_and_skips_runge_kutta()
    {
        ModelConfig ddim = new((JsonObject)JsonNode.Parse("""{"_class_name": "DDIMScheduler", "timestep_spacing": "leading", "set_alpha_to_one": false}""")!);
        Assert.Equal(TimestepSpacing.Linspace, SchedulerSettings.Read(ddim, SchedulerKind.Euler).Spacing);
        Assert.Equal(TimestepSpacing.Leading, SchedulerSettings.Read(ddim, SchedulerKind.PNDM).Spacing);
        Assert.True(SchedulerSettings.Read(ddim, SchedulerKind.PNDM).SkipRungeKutta);
        Assert.False(SchedulerSettings.Read(ddim, SchedulerKind.PNDM).SetAlphaToOne);

        ModelConfig chosen = new((JsonObject)JsonNode.Parse("""{"_class_name": "PNDMScheduler", "timestep_spacing": "trailing"}""")!);
        Assert.Equal(TimestepSpacing.Trailing, SchedulerSettings.Read(chosen, SchedulerKind.Euler).Spacing);
        Assert.False(SchedulerSettings.Read(chosen).SkipRungeKutta);

        ModelConfig euler = new((JsonObject)JsonNode.Parse("""{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}""")!);
        Assert.Equal(TimestepSpacing.Leading, SchedulerSettings.Read(euler).Spacing);
    }

    [Theory]
    [InlineData(SchedulerKind.DDIM, """{"thresholding": true}""", "thresholding")]
    [InlineData(SchedulerKind.DDPM, """{"variance_type": "learned"}""", "variance_type")]
    [InlineData(SchedulerKind.DDIM, """{"prediction_type": "sample"}""", "prediction_type")]
    [InlineData(SchedulerKind.DDIM, """{"beta_schedule": "sigmoid"}""", "beta_schedule")]
    [InlineData(SchedulerKind.PNDM, """{"timestep_spacing": "karras"}""", "timestep_spacing")]
    [InlineData(SchedulerKind.Euler, """{"use_karras_sigmas": true}""", "use_karras_sigmas")]
    [InlineData(SchedulerKind.Euler, """{"timestep_type": "continuous"}""", "timestep_type")]
    public void A_setting_that_is_not_built_is_an_error_for_the_kind_that_reads_it(SchedulerKind kind, string change, string key)
    {
        ErrorAssert.Throws(ErrorIds.ModelConfigUnsupported, () => SchedulerSettings.Read(Config(change), kind), key);

        // A key of another kind is passed over, as from_config does.
        if (key is "thresholding" or "use_karras_sigmas" or "variance_type")
        {
            Assert.Equal(SchedulerKind.PNDM, SchedulerSettings.Read(Config(change), SchedulerKind.PNDM).Kind);
        }
    }

    [Fact]
    public void Impossible_numbers_are_errors()
    {
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => SchedulerSettings.Read(Config("""{"beta_end": 1.5}"""), SchedulerKind.DDIM), "beta_end");
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => SchedulerSettings.Read(Config("""{"trained_betas": [0.5]}"""), SchedulerKind.DDIM), "trained_betas");
        ErrorAssert.Throws(ErrorIds.GenerationOptionInvalid, () => DiffusionScheduler.Create(Config("{}"), 0, SchedulerKind.DDIM), "0 steps");
        ErrorAssert.Throws(ErrorIds.GenerationOptionInvalid, () => DiffusionScheduler.Create(Config("{}"), 1001, SchedulerKind.Euler), "1001");
        ErrorAssert.Throws(ErrorIds.GenerationOptionInvalid, () => DiffusionScheduler.Create(Config("""{"skip_prk_steps": false}"""), 3, SchedulerKind.PNDM), "4");
        ErrorAssert.Throws(ErrorIds.ModelConfigInvalid, () => DiffusionScheduler.Create(Config("{}"), 1000, SchedulerKind.DDIM), "steps_offset", "1000");
    }

    [Fact]
    public void A_run_keeps_no_tensors()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor sample = randn(1, 4, 4, 4);
        Tensor answer = randn(1, 4, 4, 4);
        long before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        foreach (string change in (string[])["{}", """{"skip_prk_steps": false}"""])
        {
            using DiffusionScheduler run = DiffusionScheduler.Create(Config(change), 6, SchedulerKind.PNDM);
            foreach (double timestep in run.Timesteps)
            {
                run.Step(answer, sample, () => answer).Dispose();
            }
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private static IEnumerable<double> Timesteps(SchedulerKind kind, string change, int steps)
    {
        using DiffusionScheduler run = DiffusionScheduler.Create(Config(change), steps, kind);
        return [.. run.Timesteps];
    }

    /// <summary>Stable Diffusion's settings with some keys changed.</summary>
    private static ModelConfig Config(string change)
    {
        JsonObject json = JsonNode.Parse(StableDiffusion)!.AsObject();
        foreach ((string key, JsonNode? value) in JsonNode.Parse(change)!.AsObject())
        {
            json[key] = value?.DeepClone();
        }

        return new ModelConfig(json, SchedulerSettings.FileName);
    }

    /// <summary>ᾱ of Stable Diffusion in float64, from the definition.</summary>
    private static double[] Alphas()
    {
        double product = 1;
        return [.. Enumerable.Range(0, 1000).Select(i =>
        {
            double root = Math.Sqrt(0.00085) + ((Math.Sqrt(0.012) - Math.Sqrt(0.00085)) * i / 999);
            return product *= 1 - (root * root);
        })];
    }

    /// <summary>ᾱ between timesteps, by linear interpolation of sigma.</summary>
    private static double Alpha(NoiseSchedule schedule, double timestep)
    {
        int below = (int)Math.Floor(timestep);
        double low = schedule.Sigma(below);
        double high = schedule.Sigma(Math.Min(below + 1, schedule.Timesteps - 1));
        double sigma = low + ((high - low) * (timestep - below));
        return timestep == below ? schedule.Alpha(below) : 1 / ((sigma * sigma) + 1);
    }
}
