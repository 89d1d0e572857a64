using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// Convolutions whose groups cut through the rows of a factor. The output rows are split into the largest parts that lie both in one
/// group and in one row of the outer factor; each part takes the input of its group. Exact, and still without w1 ⊗ w2.
/// </summary>
internal static class GroupedConvolution
{
    /// <summary>Convolves an input with scale·(w1 ⊗ w2); its numbers are in the order of the result [batch, out, positions…].</summary>
    /// <param name="factors">The factors.</param>
    /// <param name="x">Padded input [batch, channels, positions…].</param>
    /// <param name="geometry">Geometry without the padding that is done.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    public static Tensor Apply(KroneckerFactors factors, Tensor x, ConvolutionGeometry geometry, double scale) =>
        factors.IsReversed ? Reversed(factors, x, geometry, scale) : Plain(factors, x, geometry, scale);

    /// <summary>w1 ⊗ w2 where a group is not a whole number of rows of w1.</summary>
    private static Tensor Plain(KroneckerFactors factors, Tensor x, ConvolutionGeometry geometry, double scale)
    {
        (long l, long m, long k, long n) = (factors.L, factors.M, factors.K, factors.N);
        (long batch, long groupRows) = (x.shape[0], factors.OutFeatures / geometry.Groups);
        long parts = k / GreatestCommonDivisor(k, groupRows);
        long[] positions = x.shape[2..];
        Tensor perPart = InputOfParts(x.reshape(batch, geometry.Groups, m, -1), l * parts, groupRows, k / parts).view([batch, l, parts, m, -1]);
        Tensor w1 = factors.W1() * scale;
        Tensor mixed = w1.view(1, l, 1, 1, m).matmul(perPart);
        return geometry.Convolve(mixed.reshape([batch * l, parts * n, .. positions]), factors.W2(), parts);
    }

    /// <summary>w2 ⊗ w1, with any number of groups.</summary>
    private static Tensor Reversed(KroneckerFactors factors, Tensor x, ConvolutionGeometry geometry, double scale)
    {
        (long l, long m, long k, long n) = (factors.L, factors.M, factors.K, factors.N);
        (long batch, long groupRows) = (x.shape[0], factors.OutFeatures / geometry.Groups);
        long parts = l / GreatestCommonDivisor(l, groupRows);
        long[] positions = x.shape[2..];
        Tensor w1 = factors.W1() * scale;
        Tensor w2 = factors.W2();
        Tensor blocks;
        long groups;
        if (parts == 1)
        {
            // Every group has whole rows of w2: an ordinary grouped convolution for each of the m channels.
            (blocks, groups) = (x.reshape(batch, geometry.Groups * n, m, -1), geometry.Groups);
        }
        else
        {
            groups = k * parts;
            blocks = InputOfParts(x.reshape(batch, geometry.Groups, n * m, -1), groups, groupRows, l / parts).reshape(batch, groups * n, m, -1);
            w2 = w2.unsqueeze(1).expand([k, parts, n, .. factors.Kernel]).reshape([groups, n, .. factors.Kernel]);
        }

        Tensor convolved = geometry.Convolve(blocks.transpose(1, 2).reshape([batch * m, groups * n, .. positions]), w2, groups);
        return einsum("cam,bmkcx->bkcax", w1.view(parts, l / parts, m), convolved.reshape(batch, m, k, parts, -1));
    }

    /// <summary>For each part the input of its group, from an input [batch, group, …].</summary>
    private static Tensor InputOfParts(Tensor x, long parts, long groupRows, long partRows)
    {
        long[] group = [.. Enumerable.Range(0, (int)parts).Select(part => part * partRows / groupRows)];
        return x.index_select(1, tensor(group, device: x.device));
    }

    private static long GreatestCommonDivisor(long a, long b) => b == 0 ? a : GreatestCommonDivisor(b, a % b);
}
