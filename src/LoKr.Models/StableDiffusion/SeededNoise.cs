using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>Noise for a batch in which every picture has a generator of its own, on the CPU.</summary>
internal sealed class SeededNoise(IEnumerable<long> seeds, long[] shape) : IDisposable
{
    private readonly Generator[] _generators = [.. seeds.Select(seed => new Generator(unchecked((ulong)seed), CPU))];

    /// <summary>The next noise [batch, …] of every generator, for a shape [1, …].</summary>
    public Tensor Draw()
    {
        using DisposeScope scope = NewDisposeScope();
        return cat([.. _generators.Select(generator => randn(shape, ScalarType.Float32, CPU, generator: generator))], 0).MoveToOuterDisposeScope();
    }

    public void Dispose() => Array.ForEach(_generators, static generator => generator.Dispose());
}
