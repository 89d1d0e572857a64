using LoKr.Core.Factors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Factors;

public sealed class ProductMemoryTests
{
    [Fact]
    public void Memory_that_came_back_is_lent_again_where_it_is_large_enough()
    {
        using ProductMemory memory = new();
        Tensor first = memory.Take(100, ScalarType.Float32);
        Tensor second = memory.Take(200, ScalarType.Float32);
        Assert.NotSame(first, second);
        memory.Return(first);
        memory.Return(second);
        Assert.Same(second, memory.Take(150, ScalarType.Float32));
        Tensor grown = memory.Take(300, ScalarType.Float32);
        Assert.True(first.IsInvalid, "Memory that is too small is released, not kept beside what takes its place.");
        Assert.NotSame(grown, memory.Take(10, ScalarType.Float64));
    }

    [Fact]
    public void Memory_with_NaN_is_lent_to_one_at_a_time()
    {
        using ProductMemory memory = new();
        using Tensor first = memory.Take(100, ScalarType.Float32).fill_(float.NaN);
        memory.Return(first);
        Assert.Same(first, memory.Take(100, ScalarType.Float32));
        using Tensor second = memory.Take(100, ScalarType.Float32);
        Assert.NotSame(first, second);
    }

    [Fact]
    public void A_delta_in_lent_memory_has_the_bits_that_it_has_in_its_own()
    {
        using DisposeScope scope = NewDisposeScope();
        manual_seed(3);
        using ProductMemory memory = new();
        memory.Return(full(5000, float.NaN).DetachFromDisposeScope());
        for (int i = 0; i < 3; i++)
        {
            KroneckerFactors factors = new(new Dictionary<string, Tensor> { ["lokr_w1"] = randn(4, 3), ["lokr_w2_a"] = randn(24 + i, 5), ["lokr_w2_b"] = randn(5, 40) }, [], false);
            (Tensor own, Tensor lent) = (zeros(4 * (24 + i), 120), zeros(4 * (24 + i), 120));
            Merge(factors, own, null);
            Merge(factors, lent, memory);
            Assert.True(TensorAssert.Same(own, lent));
        }
    }

    private static void Merge(KroneckerFactors factors, Tensor rows, ProductMemory? memory)
    {
        using LayerDelta delta = new(factors, null, 0.5, new(1, DoraStrength.Linear), isTransposed: false, memory);
        delta.MergeInto(rows, null, 0);
    }
}
