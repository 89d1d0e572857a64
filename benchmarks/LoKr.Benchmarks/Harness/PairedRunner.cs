using System.Diagnostics;

namespace LoKr.Benchmarks.Harness;

/// <summary>
/// Times variants in rounds: each round runs every variant once, in alternating order, and gives ratios of neighbors in time, so that
/// what slows the machine down for a while slows both sides of a ratio.
/// </summary>
/// <param name="budget">Time for all rounds together.</param>
/// <param name="synchronize">Waits for the device.</param>
internal sealed class PairedRunner(TimeSpan budget, Action synchronize)
{
    private const int LeastRounds = 5;
    private const int MostRounds = 400;
    private static readonly TimeSpan s_leastSample = TimeSpan.FromMilliseconds(4);

    /// <summary>Seconds per call, by variant and round.</summary>
    public double[][] Measure(IReadOnlyList<Variant> variants)
    {
        int[] repeats = [.. variants.Select(WarmUp)];
        List<double>[] times = [.. variants.Select(static _ => new List<double>())];
        long started = Stopwatch.GetTimestamp();
        for (int round = 0; round < MostRounds && (round < LeastRounds || Stopwatch.GetElapsedTime(started) < budget); round++)
        {
            for (int i = 0; i < variants.Count; i++)
            {
                int index = round % 2 == 0 ? i : variants.Count - 1 - i;
                times[index].Add(Sample(variants[index], repeats[index]));
            }
        }

        return [.. times.Select(static list => list.ToArray())];
    }

    /// <summary>Runs a variant until it is compiled and its memory is there; returns the calls that make a sample.</summary>
    private int WarmUp(Variant variant)
    {
        double shortest = double.PositiveInfinity;
        long started = Stopwatch.GetTimestamp();
        for (int i = 0; i < 3 || (i < 60 && Stopwatch.GetElapsedTime(started) < budget / 20); i++)
        {
            shortest = Math.Min(shortest, Sample(variant, 1));
        }

        return variant.Prepare is null ? Math.Clamp((int)(s_leastSample.TotalSeconds / shortest), 1, 1000) : 1;
    }

    private double Sample(Variant variant, int repeats)
    {
        variant.Prepare?.Invoke();
        synchronize();
        long started = Stopwatch.GetTimestamp();
        for (int i = 0; i < repeats; i++)
        {
            variant.Run();
        }

        synchronize();
        return Stopwatch.GetElapsedTime(started).TotalSeconds / repeats;
    }
}
