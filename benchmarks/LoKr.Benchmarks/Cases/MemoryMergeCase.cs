using LoKr.Benchmarks.Harness;
using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Benchmarks.Cases;

/// <summary>w1 ⊗ w2 added into a weight in place, against a copy of the same weight.</summary>
internal sealed class MemoryMergeCase : IBenchmarkCase
{
    /// <inheritdoc/>
    public string Name => "memory-merge";

    /// <inheritdoc/>
    public string Title => "merge into an 11008x4096 weight in memory";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        foreach (int factor in (int[])[-1, 8])
        {
            Measure(context, ScalarType.Float32, factor, 1.0);
            Measure(context, ScalarType.BFloat16, factor, 2.0);
        }
    }

    private static void Measure(BenchmarkContext context, ScalarType type, int factor, double limit)
    {
        using DisposeScope scope = NewDisposeScope();
        const long Out = 11008;
        const long In = 4096;
        Tensor weight = randn([Out, In], device: context.Device).to(type);
        Tensor copy = empty_like(weight);
        FactorShapes shapes = FactorShapes.Create(Out, In, [], 16, new LoKrConfig { DecomposeFactor = factor });
        KroneckerFactors factors = new(shapes.Tensors().ToDictionary(static entry => entry.Suffix, entry => randn(entry.Shape, device: context.Device) * 0.02));

        // The sign alternates, so that the weight stays where it is.
        double scale = 1e-3;
        context.Compare(
            $"{Out}x{In} {type}, factor {factor}, r 16",
            [new("merge", () => FactorMerge.AddTo(weight, factors, scale = -scale)), new("memory copy", () => copy.copy_(weight))],
            [new("merge", "memory copy", limit)]);
    }
}
