using TorchSharp;
using Xunit;

namespace LoKr.Testing;

/// <summary>The number of live tensors of the process, made comparable.</summary>
public static class TensorCount
{
    /// <summary>Live tensors after what other tests dropped has been finalized; without that it may go at any time.</summary>
    public static long Settled()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return torch.Tensor.TotalCount;
    }

    /// <summary>
    /// Asserts that counts taken once a step do not rise after the first steps. A step that leaves a tensor behind raises every
    /// later count; the finalizer of a wrapper that something else dropped may lower one.
    /// </summary>
    /// <param name="counts">One count a step.</param>
    /// <param name="warmUp">Steps that may still build what the run keeps.</param>
    public static void AssertFlat(IReadOnlyList<long> counts, int warmUp)
    {
        Assert.True(counts.Count > warmUp + 10, $"Only {counts.Count} steps were counted.");
        Assert.All(counts.Skip(warmUp), count => Assert.InRange(count, 0, counts[warmUp - 1]));
    }
}
