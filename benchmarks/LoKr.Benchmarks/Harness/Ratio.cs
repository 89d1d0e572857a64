namespace LoKr.Benchmarks.Harness;

/// <summary>A measured ratio.</summary>
/// <param name="Case">What was measured.</param>
/// <param name="Target">What was divided by what, and the limit.</param>
/// <param name="Median">Median of the ratios of all rounds.</param>
/// <param name="Low">Their lower quartile.</param>
/// <param name="High">Their upper quartile.</param>
internal sealed record Ratio(string Case, Target Target, double Median, double Low, double High)
{
    /// <summary>Whether the target is met; null without one.</summary>
    public bool? IsMet => Target.AtMost is double limit ? Median <= limit : null;
}
