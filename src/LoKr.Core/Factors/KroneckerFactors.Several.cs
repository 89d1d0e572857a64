using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <content>Several adapters on one linear layer in one pass.</content>
public sealed partial class KroneckerFactors
{
    /// <summary>
    /// Whether the factors of several adapters can be applied in one pass: a full w1 and a low-rank w2, all of the same shapes. The pass then
    /// reads the input once and writes the output once, whatever their number.
    /// </summary>
    internal static bool AreAlike(IReadOnlyList<KroneckerFactors> all) => all.All(one =>
        one._w1 is not null && one.Find(FactorNames.W2A) is not null && one.Kernel.Count == 0 && one.DType == all[0].DType
        && one._w1.shape.SequenceEqual(all[0]._w1!.shape) && one.Get(FactorNames.W2A).shape.SequenceEqual(all[0].Get(FactorNames.W2A).shape)
        && one.N == all[0].N);

    /// <summary>y + Σ scaleᵢ·x·(w1ᵢ ⊗ w2ᵢ)ᵀ for factors that are <see cref="AreAlike">alike</see>, with the adapter and the rank in front.</summary>
    /// <param name="y">What to add to [..., out], in the type of the factors; left as it is.</param>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="all">Factors of each adapter.</param>
    /// <param name="scales">Scale of each adapter.</param>
    internal static Tensor AddAllTo(Tensor y, Tensor x, IReadOnlyList<KroneckerFactors> all, IReadOnlyList<double> scales)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors first = all[0];
        (long l, long m, long k, long n) = (first.L, first.M, first.K, first.N);
        long tokens = x.numel() / first.InFeatures;
        Tensor b = cat([.. all.Select(static one => one.Get(FactorNames.W2B))]);
        Tensor a = cat([.. all.Select(static one => one.Get(FactorNames.W2A))], 1);
        Tensor w1 = stack([.. all.Select((one, i) => one.OuterParts()[0] * scales[i])]);
        long ranks = b.shape[0];

        // [adapter·rank, token·m] → [adapter, rank·token, l] → [adapter·rank, token·l]: views between products, no copies.
        Tensor p = b.mm(x.reshape(tokens * m, n).t());
        Tensor q = p.view(all.Count, ranks / all.Count * tokens, m).bmm(w1.transpose(1, 2));
        Tensor sum = y.reshape(tokens * l, k).addmm(q.view(ranks, tokens * l).t(), a.t(), 1f, 1f);
        return WithLastDimension(sum, x, first.OutFeatures).MoveToOuterDisposeScope();
    }
}
