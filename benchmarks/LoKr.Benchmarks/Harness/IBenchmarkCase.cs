namespace LoKr.Benchmarks.Harness;

/// <summary>One thing that is measured, with what it is compared with.</summary>
internal interface IBenchmarkCase
{
    /// <summary>Short name for <c>--only</c>.</summary>
    string Name { get; }

    /// <summary>The measurement, in one line.</summary>
    string Title { get; }

    /// <summary>Measures, and reports through the context.</summary>
    void Run(BenchmarkContext context);
}
