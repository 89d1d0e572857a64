using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion.Schedulers;

/// <summary>The betas of a scheduler configuration, computed in float32 as diffusers computes them, so that every later figure agrees.</summary>
internal static class BetaSchedule
{
    private const double LargestBeta = 0.999;

    /// <summary>One beta a training timestep.</summary>
    public static float[] Read(ModelConfig config, int timesteps, bool zeroTerminalSnr)
    {
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

        return (config.GetString("beta_schedule", null) ?? "linear") switch
        {
            "linear" => linspace(start, end, timesteps, dtype: ScalarType.Float32),
            "scaled_linear" => linspace(Math.Sqrt(start), Math.Sqrt(end), timesteps, dtype: ScalarType.Float32).square(),
            "squaredcos_cap_v2" => tensor(Enumerable.Range(0, timesteps)
                .Select(i => (float)Math.Min(1 - (CosineAlpha((i + 1.0) / timesteps) / CosineAlpha((double)i / timesteps)), LargestBeta))
                .ToArray()),
            string other => throw config.Unsupported("beta_schedule", $"is '{other}'; only linear, scaled_linear and squaredcos_cap_v2 are built"),
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
