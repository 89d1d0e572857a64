namespace LoKr.Core.Safetensors;

/// <summary>Arithmetic on the sizes of tensors.</summary>
internal static class TensorShape
{
    /// <summary>Number of elements of a shape; 1 for an empty one.</summary>
    public static long Product(this IEnumerable<long> shape)
    {
        long product = 1;
        foreach (long size in shape)
        {
            product *= size;
        }

        return product;
    }
}
