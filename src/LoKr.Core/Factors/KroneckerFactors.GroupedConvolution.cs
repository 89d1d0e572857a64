using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <content>
/// Convolutions whose groups cut through the rows of a factor. The output rows are split into the largest parts that lie both in one
/// group and in one row of the outer factor; each part takes the input of its group. Exact, and still without w1 ⊗ w2.
/// </content>
public sealed partial class KroneckerFactors
{
    /// <summary>w1 ⊗ w2 where a group is not a whole number of rows of w1.</summary>
    private Tensor Grouped(Tensor x, ConvolutionGeometry geometry, double scale)
    {
        (long batch, long groupRows) = (x.shape[0], OutFeatures / geometry.Groups);
        long parts = K / Gcd(K, groupRows);
        long[] positions = x.shape[2..];
        Tensor perPart = OfGroups(x.reshape(batch, geometry.Groups, M, -1), 1, L * parts, groupRows, K / parts).view([batch, L, parts, M, -1]);
        Tensor w1 = W1() * scale;
        Tensor mixed = w1.view(1, L, 1, 1, M).matmul(perPart);
        return geometry.Convolve(mixed.reshape([batch * L, parts * N, .. positions]), W2(), parts);
    }

    /// <summary>w2 ⊗ w1, with any number of groups.</summary>
    private Tensor GroupedReversed(Tensor x, ConvolutionGeometry geometry, double scale)
    {
        (long batch, long groupRows) = (x.shape[0], OutFeatures / geometry.Groups);
        long parts = L / Gcd(L, groupRows);
        long[] positions = x.shape[2..];
        Tensor w1 = W1() * scale;
        Tensor w2 = W2();
        Tensor blocks;
        long groups;
        if (parts == 1)
        {
            // Every group has whole rows of w2: an ordinary grouped convolution for each of the m channels.
            (blocks, groups) = (x.reshape(batch, geometry.Groups * N, M, -1), geometry.Groups);
        }
        else
        {
            groups = K * parts;
            blocks = OfGroups(x.reshape(batch, geometry.Groups, N * M, -1), 1, groups, groupRows, L / parts).reshape(batch, groups * N, M, -1);
            w2 = w2.unsqueeze(1).expand([K, parts, N, .. Kernel]).reshape([groups, N, .. Kernel]);
        }

        Tensor convolved = geometry.Convolve(blocks.transpose(1, 2).reshape([batch * M, groups * N, .. positions]), w2, groups);
        return einsum("cam,bmkcx->bkcax", w1.view(parts, L / parts, M), convolved.reshape(batch, M, K, parts, -1));
    }

    /// <summary>The input of the group of each part.</summary>
    private static Tensor OfGroups(Tensor x, int dimension, long parts, long groupRows, long partRows)
    {
        long[] group = [.. Enumerable.Range(0, (int)parts).Select(part => part * partRows / groupRows)];
        return x.index_select(dimension, tensor(group, device: x.device));
    }

    private static long Gcd(long a, long b) => b == 0 ? a : Gcd(b, a % b);
}
