using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// Several adapters on one linear layer in one pass, which reads the input once and writes the output once, whatever their number. The
/// adapters must have a full w1 and a low-rank w2, all of the same shapes.
/// </summary>
internal static class StackedContraction
{
    /// <summary>Whether the factors of several adapters can be applied in one pass.</summary>
    public static bool Fits(IReadOnlyList<KroneckerFactors> all)
    {
        KroneckerFactors first = all[0];
        return all.All(one =>
            one.FullW1 is not null && one.W2A is not null && one.Kernel.Count == 0 && one.DType == first.DType
            && one.FullW1.shape.SequenceEqual(first.FullW1!.shape) && one.W2A.shape.SequenceEqual(first.W2A!.shape)
            && one.N == first.N);
    }

    /// <summary>Computes y + Σ scaleᵢ·x·(w1ᵢ ⊗ w2ᵢ)ᵀ with the adapter and the rank in front, for factors that <see cref="Fits">fit</see>.</summary>
    /// <param name="y">Summand [..., out] in the type of the factors; not modified.</param>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="all">Factors of each adapter.</param>
    /// <param name="scales">Scale of each adapter.</param>
    public static Tensor AddTo(Tensor y, Tensor x, IReadOnlyList<KroneckerFactors> all, IReadOnlyList<double> scales)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors first = all[0];
        (long l, long m, long k, long n) = (first.L, first.M, first.K, first.N);
        long tokens = x.numel() / first.InFeatures;
        Tensor b = cat([.. all.Select(static one => one.W2B!)]);
        Tensor a = cat([.. all.Select(static one => one.W2A!)], 1);
        Tensor w1 = stack([.. all.Select((one, i) => one.OuterSteps()[0] * scales[i])]);
        long ranks = b.shape[0];

        // [adapter·rank, token·m] → [adapter, rank·token, l] → [adapter·rank, token·l]: views between products, no copies.
        Tensor p = b.mm(x.reshape(tokens * m, n).t());
        Tensor q = p.view(all.Count, ranks / all.Count * tokens, m).bmm(w1.transpose(1, 2));
        Tensor sum = y.reshape(tokens * l, k).addmm(q.view(ranks, tokens * l).t(), a.t(), 1f, 1f);
        return LinearContraction.WithLastDimension(sum, x, first.OutFeatures).MoveToOuterDisposeScope();
    }
}
