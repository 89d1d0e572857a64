using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>McNemar's exact test: two models answer the same rows, and only rows that one of them gets right tell them apart.</summary>
public static class McNemarTest
{
    /// <summary>
    /// The two-sided p-value: the probability, for models that are equally good, of counts as different as these or more. It is the exact
    /// binomial one (McNemar 1947, without the approximation by χ²); 1 where both counts are 0.
    /// </summary>
    /// <param name="onlyFirst">Rows that only the first model gets right.</param>
    /// <param name="onlySecond">Rows that only the second model gets right.</param>
    public static double PValue(int onlyFirst, int onlySecond)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(onlyFirst);
        ArgumentOutOfRangeException.ThrowIfNegative(onlySecond);
        return Math.Min(1, 2 * BinomialTail(onlyFirst + onlySecond, Math.Min(onlyFirst, onlySecond)));
    }

    // P(X <= most) for X ~ Bin(count, 1/2); each term by its logarithm, so that 2^-count may be too small for a double.
    private static double BinomialTail(int count, int most)
    {
        double term = -count * Math.Log(2);
        double sum = Math.Exp(term);
        for (int i = 1; i <= most; i++)
        {
            term += Math.Log((count - i + 1) / (double)i);
            sum += Math.Exp(term);
        }

        return sum;
    }
}

/// <summary>
/// The paired bootstrap (Efron; Koehn 2004 for comparisons of systems): rows, or the queries of rankings, are drawn with replacement, the same ones for both models, and the
/// metric of both is computed over them. It needs no assumption about the metric.
/// </summary>
/// <param name="LowerBound">Lower end of the percentile interval of the improvement.</param>
/// <param name="UpperBound">Its upper end.</param>
/// <param name="PValue">Twice the share of samples in which the better model is not better, at most 1.</param>
public sealed record PairedBootstrap(double LowerBound, double UpperBound, double PValue)
{
    /// <summary>Compares two models. Equal arguments give equal results, on any number of threads.</summary>
    /// <param name="first">The metric over the rows of one model.</param>
    /// <param name="second">The metric over the same rows of the other one.</param>
    /// <param name="confidence">Confidence of the interval, for example 0.95.</param>
    /// <param name="resamples">Number of samples.</param>
    /// <param name="seed">Seed of the samples.</param>
    /// <param name="cancellation">Stops it.</param>
    public static PairedBootstrap Compare(RowMetric first, RowMetric second, double confidence, int resamples = 10_000, long seed = 0, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(first);
        ArgumentNullException.ThrowIfNull(second);
        ArgumentOutOfRangeException.ThrowIfNotEqual(second.UnitCount, first.UnitCount);
        ArgumentOutOfRangeException.ThrowIfLessThan(resamples, 1);
        double[] improvements = new double[resamples];
        Parallel.For(0, resamples, new() { CancellationToken = cancellation }, () => new int[first.UnitCount], (i, _, sample) =>
        {
            SplitMix64 random = new(TrainingSeeds.Of(seed, i, 0));
            for (int row = 0; row < sample.Length; row++)
            {
                sample[row] = random.Next(sample.Length);
            }

            improvements[i] = first.Metric.Improvement(second.ValueOf(sample), first.ValueOf(sample));
            return sample;
        }, static _ => { });
        Array.Sort(improvements);

        // One more in both counts, so that no finite number of samples claims certainty. What is not a number is not better.
        int notBetter = improvements.Count(static value => !(value > 0));
        int notWorse = improvements.Count(static value => !(value < 0));
        return new(At((1 - confidence) / 2), At((1 + confidence) / 2), Math.Min(1, 2.0 * (Math.Min(notBetter, notWorse) + 1) / (resamples + 1)));

        double At(double share) => improvements[(int)Math.Round(share * (resamples - 1))];
    }
}
