namespace LoKr.Benchmarks.Harness;

/// <summary>A ratio that is reported, and what it must not exceed.</summary>
/// <param name="Variant">Whose time is divided.</param>
/// <param name="Against">By whose time.</param>
/// <param name="AtMost">The largest ratio that is good enough; null for a ratio that is only told.</param>
internal sealed record Target(string Variant, string Against, double? AtMost = null);
