using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Adds scale·(w1 ⊗ w2) into a weight, in place and in one pass, without a temporary of the size of the weight.</summary>
public static class FactorMerge
{
    /// <summary>Numbers of a weight of lower precision that are widened at a time; one block stays in the cache of a core.</summary>
    private const long BlockSize = 1L << 18;

    /// <summary>
    /// Merges into a weight of any floating-point type and any strides. A weight of lower precision than the factors is rounded once, after
    /// the sum.
    /// </summary>
    /// <param name="weight">Base weight, out×in×kernel.</param>
    /// <param name="factors">The factors.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    public static void AddTo(Tensor weight, KroneckerFactors factors, double scale)
    {
        ArgumentNullException.ThrowIfNull(weight);
        ArgumentNullException.ThrowIfNull(factors);
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();

        // Each dimension is only split, which is a view whatever the strides.
        (long l, long m, long k, long n) = (factors.L, factors.M, factors.K, factors.N);
        Tensor target = weight.view(factors.IsReversed ? [k, l, n, m, .. factors.Kernel] : [l, k, m, n, .. factors.Kernel]);
        Tensor w1 = factors.BroadcastOuter(factors.W1().to(weight.device));
        Tensor w2 = factors.BroadcastInner(factors.W2().to(weight.device));

        // In the order of memory: a weight that is stored transposed is taken by its columns.
        if (weight.stride(0) < weight.stride(1))
        {
            long[] order = [2, 3, 0, 1, .. factors.Kernel.Select(static (_, i) => 4L + i)];
            (target, w1, w2) = (target.permute(order), w1.permute(order), w2.permute(order));
        }

        bool isPlain = weight.device_type == DeviceType.CPU && !factors.IsReversed && target.is_contiguous();
        if (isPlain && MergeKernel.Supports(factors.DType, weight.dtype))
        {
            using MergeKernel kernel = new(w1.reshape(w1.shape[0], w1.shape[2]), w2.reshape(w2.shape[1], -1), scale);
            kernel.AddTo(target);
        }
        else if (weight.dtype == factors.DType)
        {
            target.addcmul_(w1, w2, scale);
        }
        else
        {
            MergeByBlocks(target, w1, w2, scale);
        }
    }

    /// <summary>Widens, adds and rounds a block at a time. One of the factors has one row in each of the first two dimensions.</summary>
    private static void MergeByBlocks(Tensor target, Tensor w1, Tensor w2, double scale)
    {
        long[] shape = target.shape;
        long rows = Math.Max(1, BlockSize / shape[2..].Product());
        (long step0, long step1) = rows >= shape[1] ? (Math.Min(rows / shape[1], shape[0]), shape[1]) : (1, rows);
        using Tensor buffer = empty([step0, step1, .. shape[2..]], dtype: w1.dtype, device: target.device);
        for (long i = 0; i < shape[0]; i += step0)
        {
            for (long j = 0; j < shape[1]; j += step1)
            {
                using DisposeScope scope = NewDisposeScope();
                Tensor block = Block(target, i, step0, j, step1);
                Tensor wide = Block(buffer, 0, block.shape[0], 0, block.shape[1]);
                wide.copy_(block);
                wide.addcmul_(Block(w1, i, step0, j, step1), Block(w2, i, step0, j, step1), scale);
                block.copy_(wide);
            }
        }
    }

    /// <summary>Part of a tensor in its first two dimensions; a dimension of size 1 stays, for broadcasting.</summary>
    private static Tensor Block(Tensor tensor, long start0, long count0, long start1, long count1)
    {
        long[] shape = tensor.shape;
        Tensor part = shape[0] == 1 ? tensor : tensor.narrow(0, start0, Math.Min(count0, shape[0] - start0));
        return shape[1] == 1 ? part : part.narrow(1, start1, Math.Min(count1, shape[1] - start1));
    }
}
