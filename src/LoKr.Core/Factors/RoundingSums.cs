using System.Numerics;
using System.Runtime.Intrinsics;

namespace LoKr.Core.Factors;

/// <summary>Sums over values of a weight that tell what rounding leaves of a change.</summary>
/// <param name="Delta">⟨delta, delta⟩, delta = merged − before.</param>
/// <param name="Along">⟨after − before, delta⟩.</param>
/// <param name="Error">⟨after − merged, after − merged⟩.</param>
/// <param name="Count">Number of values.</param>
/// <param name="Unchanged">Values that are stored as they were, with the same sign of zero.</param>
internal readonly record struct RoundingSums(double Delta, double Along, double Error, long Count, long Unchanged)
{
    // Values that are summed in float32.
    private const int Run = 4096;

    /// <summary>Values beyond the largest one that their type and scale hold.</summary>
    public long AtLimit { get; init; }

    /// <summary>Both sums.</summary>
    public RoundingSums Plus(in RoundingSums other) => new(Delta + other.Delta, Along + other.Along, Error + other.Error, Count + other.Count, Unchanged + other.Unchanged) { AtLimit = AtLimit + other.AtLimit };

    /// <summary>The sums of so many times the values, of which these are a sample.</summary>
    public RoundingSums Times(double factor) => new(Delta * factor, Along * factor, Error * factor, (long)(Count * factor), (long)(Unchanged * factor)) { AtLimit = (long)(AtLimit * factor) };

    /// <summary>The sums of some values.</summary>
    /// <param name="before">Values of the base model.</param>
    /// <param name="merged">Values with the change, before they are rounded.</param>
    /// <param name="after">Values as they are stored.</param>
    public static RoundingSums Of(ReadOnlySpan<float> before, ReadOnlySpan<float> merged, ReadOnlySpan<float> after)
    {
        RoundingSums sums = default;
        for (int start = 0; start < before.Length; start += Run)
        {
            int count = Math.Min(Run, before.Length - start);
            sums = sums.Plus(OfRun(before.Slice(start, count), merged.Slice(start, count), after.Slice(start, count)));
        }

        return sums;
    }

    private static RoundingSums OfRun(ReadOnlySpan<float> before, ReadOnlySpan<float> merged, ReadOnlySpan<float> after)
    {
        Vector256<float> deltas = Vector256<float>.Zero;
        Vector256<float> alongs = Vector256<float>.Zero;
        Vector256<float> errors = Vector256<float>.Zero;
        long unchanged = 0;
        int i = 0;
        for (; i <= before.Length - Vector256<float>.Count; i += Vector256<float>.Count)
        {
            Vector256<float> start = Vector256.Create(before[i..]);
            Vector256<float> wanted = Vector256.Create(merged[i..]);
            Vector256<float> stored = Vector256.Create(after[i..]);
            Vector256<float> delta = wanted - start;
            Vector256<float> error = stored - wanted;
            deltas += delta * delta;
            alongs += (stored - start) * delta;
            errors += error * error;
            unchanged += BitOperations.PopCount(Vector256.Equals(stored.AsUInt32(), start.AsUInt32()).ExtractMostSignificantBits());
        }

        (double sumDelta, double sumAlong, double sumError) = (Vector256.Sum(deltas), Vector256.Sum(alongs), Vector256.Sum(errors));
        for (; i < before.Length; i++)
        {
            double delta = (double)merged[i] - before[i];
            double error = (double)after[i] - merged[i];
            sumDelta += delta * delta;
            sumAlong += ((double)after[i] - before[i]) * delta;
            sumError += error * error;
            unchanged += BitConverter.SingleToUInt32Bits(after[i]) == BitConverter.SingleToUInt32Bits(before[i]) ? 1 : 0;
        }

        return new(sumDelta, sumAlong, sumError, before.Length, unchanged);
    }
}
