using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Shared;

/// <summary>
/// Angles per position of every pair of channels, float32 [width/2] on the CPU, and the factor on cosine and sine. Computed with torch's
/// float32 operations in the order of transformers: a rounding error in a frequency grows with the position.
/// </summary>
internal static class RopeFrequencies
{
    /// <summary>The frequencies for sequences of a length; only dynamic and longrope depend on it.</summary>
    /// <param name="settings">The kind and its values.</param>
    /// <param name="length">Length of the sequence: last position + 1.</param>
    /// <returns>Frequencies, owned by the caller, and the attention factor.</returns>
    public static (Tensor Frequencies, double AttentionFactor) Compute(RopeSettings settings, long length)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor frequencies, double factor) = settings.Type switch
        {
            "default" => (Plain(settings, settings.Theta), 1),
            "linear" => (Plain(settings, settings.Theta) / settings.Factor, 1),
            "dynamic" => (Plain(settings, DynamicTheta(settings, length)), 1),
            "yarn" => Yarn(settings),
            "longrope" => LongRope(settings, length),
            "llama3" => (Llama3(settings), 1),
            _ => throw new InvalidOperationException($"No frequencies for '{settings.Type}'."),
        };
        return (frequencies.MoveToOuterDisposeScope(), factor);
    }

    // The exponents 0, 2/width, 4/width, …
    private static Tensor Exponents(RopeSettings settings) => arange(0, settings.Width, 2, ScalarType.Float32) / settings.Width;

    private static Tensor Powers(RopeSettings settings, double theta) => tensor((float)theta).pow(Exponents(settings));

    private static Tensor Plain(RopeSettings settings, double theta) => Powers(settings, theta).reciprocal();

    // NTK-aware scaling: the base grows with the sequence once it is longer than the model's positions.
    private static double DynamicTheta(RopeSettings settings, long length)
    {
        double stretched = (settings.Factor * Math.Max(length, settings.Positions) / settings.Positions) - (settings.Factor - 1);
        return settings.Theta * Math.Pow(stretched, settings.Width / (settings.Width - 2.0));
    }

    // Peng et al., arXiv:2309.00071: fast channels keep their frequency, slow ones are interpolated, a ramp lies between.
    private static (Tensor Frequencies, double AttentionFactor) Yarn(RopeSettings settings)
    {
        ModelConfig given = settings.Parameters;
        double low = Channel(settings, Or("beta_fast", 32));
        double high = Channel(settings, Or("beta_slow", 1));
        if (given.GetBool("truncate", true))
        {
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        }

        (low, high) = (Math.Max(low, 0), Math.Min(high, settings.Width - 1));
        high += low == high ? 0.001 : 0;

        Tensor powers = Powers(settings, settings.Theta);
        Tensor kept = 1 - ((arange(settings.Width / 2, ScalarType.Float32) - low) / (high - low)).clamp(0, 1);
        Tensor interpolated = (powers * settings.Factor).reciprocal();
        Tensor frequencies = (interpolated * (1 - kept)) + (powers.reciprocal() * kept);

        double scale = Or("mscale", 0);
        double scaleAll = Or("mscale_all_dim", 0);
        double factor = given.GetDouble("attention_factor")
            ?? (scale != 0 && scaleAll != 0 ? Magnitude(settings.Factor, scale) / Magnitude(settings.Factor, scaleAll) : Magnitude(settings.Factor, 1));
        return (frequencies, factor);

        // As in Python, 0 counts as not given.
        double Or(string key, double defaultValue) => given.GetDouble(key, defaultValue) is var value && value != 0 ? value : defaultValue;
    }

    // The channel that turns so often over the trained length.
    private static double Channel(RopeSettings settings, double rotations) =>
        settings.Width * Math.Log(settings.OriginalPositions / (rotations * 2 * Math.PI)) / (2 * Math.Log(settings.Theta));

    private static double Magnitude(double factor, double scale) => factor <= 1 ? 1 : (0.1 * scale * Math.Log(factor)) + 1;

    // Ding et al., arXiv:2402.13753: a factor per channel, one list up to the trained length and one beyond.
    private static (Tensor Frequencies, double AttentionFactor) LongRope(RopeSettings settings, long length)
    {
        float[] stretches = Factors(settings, IsLong(settings, length) ? "long_factor" : "short_factor");
        double factor = settings.Parameters.GetDouble("attention_factor")
            ?? (settings.Factor <= 1 ? 1 : Math.Sqrt(1 + (Math.Log(settings.Factor) / Math.Log(settings.OriginalPositions))));
        return ((tensor(stretches) * Powers(settings, settings.Theta)).reciprocal(), factor);
    }

    /// <summary>Whether a sequence is longer than what longrope was trained with.</summary>
    public static bool IsLong(RopeSettings settings, long length) => length > settings.OriginalPositions;

    private static float[] Factors(RopeSettings settings, string key)
    {
        float[] values = [.. settings.Parameters.GetDoubles(key).Select(value => (float)value)];
        return values.Length == settings.Width / 2
            ? values
            : throw settings.Parameters.Invalid(key, $"has {values.Length} values; {settings.Width / 2} pairs of channels need one each");
    }

    // Llama 3.1: slow channels are stretched, fast ones are not, those between are blended by their wave length.
    private static Tensor Llama3(RopeSettings settings)
    {
        double lowFactor = settings.Require("low_freq_factor");
        double highFactor = settings.Require("high_freq_factor");
        if (highFactor <= lowFactor)
        {
            throw settings.Parameters.Invalid("high_freq_factor", $"is not above low_freq_factor");
        }

        double positions = settings.OriginalPositions;
        Tensor plain = Plain(settings, settings.Theta);
        Tensor waves = plain.reciprocal() * (2 * Math.PI);
        Tensor slow = waves.gt(positions / lowFactor);
        Tensor stretched = where(slow, plain / settings.Factor, plain);
        Tensor blend = ((waves.reciprocal() * positions) - lowFactor) / (highFactor - lowFactor);
        Tensor blended = ((1 - blend) * stretched / settings.Factor) + (blend * stretched);
        Tensor between = waves.lt(positions / highFactor).logical_not().logical_and(slow.logical_not());
        return where(between, blended, stretched);
    }
}
