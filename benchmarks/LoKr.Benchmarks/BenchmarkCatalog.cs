using LoKr.Benchmarks.Cases;
using LoKr.Benchmarks.Harness;

namespace LoKr.Benchmarks;

/// <summary>Every benchmark, in the order in which they run.</summary>
internal static class BenchmarkCatalog
{
    /// <summary>The benchmarks.</summary>
    public static IReadOnlyList<IBenchmarkCase> All { get; } =
    [
        new LinearLayerCase(),
        new ConvolutionCase(),
        new TrainingStepCase(),
        new FamilyStepCase(),
        new LanguageModelStepCase(),
        new GenerationCase(),
        new UNetStepCase(),
        new OptimizerCase(),
        new RunCostCase(),
        new RegistryCase(),
        new MemoryMergeCase(),
        new DiskMergeCase(),
        new FileMergeCase(),
        new GgufMergeCase(),
        new ExtractionCase(),
        new LoadCase(),
        new InspectCase(),
        new ImportCase(),
        new TokenizerCase(),
        new LayerMemoryCase(),
    ];
}
