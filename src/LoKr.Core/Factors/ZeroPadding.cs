using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Fills low-rank matrices up to a rank that is larger than theirs.</summary>
internal static class ZeroPadding
{
    /// <summary>The tensor with zeros at the end of one dimension; itself where it is that large already.</summary>
    /// <param name="tensor">The tensor.</param>
    /// <param name="dimension">The dimension.</param>
    /// <param name="size">Least size of the dimension.</param>
    public static Tensor Pad(Tensor tensor, int dimension, long size)
    {
        long missing = size - tensor.shape[dimension];
        if (missing <= 0)
        {
            return tensor;
        }

        long[] shape = [.. tensor.shape];
        shape[dimension] = missing;
        return cat([tensor, zeros(shape, dtype: tensor.dtype, device: tensor.device)], dimension);
    }
}
