namespace LoKr.Benchmarks.Harness;

/// <summary>One way to do the work that is compared.</summary>
/// <param name="Name">Its name in the output.</param>
/// <param name="Run">Does the work once.</param>
/// <param name="Prepare">Runs before each measured call, outside the measured time; null for nothing. A variant with it is called once a sample.</param>
internal sealed record Variant(string Name, Action Run, Action? Prepare = null);
