using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

public sealed partial class KroneckerFactors
{
    /// <summary>Numbers of a weight of lower precision that are widened at a time; one block stays in the cache of a core.</summary>
    private const long MergeBlock = 1L << 18;

    /// <summary>
    /// Adds scale·(w1 ⊗ w2) into a weight of any floating-point type and any strides, in place, in one pass and without a temporary of its
    /// size. A weight of lower precision than the factors is rounded once, after the sum.
    /// </summary>
    /// <param name="weight">Base weight, out×in×kernel.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    public void MergeInto(Tensor weight, double scale)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();

        // Each dimension is only split, which is a view whatever the strides.
        Tensor target = weight.view(IsReversed ? [K, L, N, M, .. Kernel] : [L, K, M, N, .. Kernel]);
        Tensor w1 = Outer(W1().to(weight.device));
        Tensor w2 = Inner(W2().to(weight.device));
        if (weight.dtype == DType)
        {
            target.addcmul_(w1, w2, scale);
            return;
        }

        // In the order of memory: a weight that is stored transposed is taken by its columns.
        if (weight.stride(0) < weight.stride(1))
        {
            long[] order = [2, 3, 0, 1, .. Kernel.Select(static (_, i) => 4L + i)];
            (target, w1, w2) = (target.permute(order), w1.permute(order), w2.permute(order));
        }

        bool inOnePass = weight.device_type == DeviceType.CPU && weight.dtype == ScalarType.BFloat16 && DType == ScalarType.Float32 && !IsReversed;
        if (inOnePass && target.is_contiguous())
        {
            BFloat16Merge.Add(target, w1.reshape(w1.shape[0], w1.shape[2]) * scale, w2.reshape(w2.shape[1], -1), get_num_threads());
        }
        else
        {
            MergeByBlocks(target, w1, w2, scale);
        }
    }

    /// <summary>Widens, adds and rounds a block at a time. One of the factors has one row in each of the first two dimensions.</summary>
    private void MergeByBlocks(Tensor target, Tensor w1, Tensor w2, double scale)
    {
        long[] shape = target.shape;
        long rows = Math.Max(1, MergeBlock / shape[2..].Product());
        (long step0, long step1) = rows >= shape[1] ? (Math.Min(rows / shape[1], shape[0]), shape[1]) : (1, rows);
        using Tensor buffer = empty([step0, step1, .. shape[2..]], dtype: DType, device: target.device);
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
