namespace LoKr.Benchmarks.Harness;

/// <summary>Order statistics.</summary>
internal static class Statistics
{
    /// <summary>The value below which a share of all values lies, interpolated.</summary>
    public static double Quantile(IEnumerable<double> values, double share)
    {
        double[] sorted = [.. values.Order()];
        double position = share * (sorted.Length - 1);
        int below = (int)position;
        return below + 1 < sorted.Length ? sorted[below] + ((position - below) * (sorted[below + 1] - sorted[below])) : sorted[below];
    }

    /// <summary>The middle one.</summary>
    public static double Median(IEnumerable<double> values) => Quantile(values, 0.5);
}
