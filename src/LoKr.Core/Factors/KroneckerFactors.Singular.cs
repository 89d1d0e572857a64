using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <content>
/// The singular value decomposition of w1 ⊗ w2, from those of w1 and w2 alone: every product of a singular value of w1 and one of w2 is
/// one, and its vectors are the Kronecker products of theirs. A convolution's kernel counts to the columns. In double precision on the CPU.
/// </content>
public sealed partial class KroneckerFactors
{
    /// <summary>Largest singular value of w1 ⊗ w2 (a convolution's kernel counts to the columns), from the factors.</summary>
    public double SpectralNorm()
    {
        using Tensor values = SingularValues(1);
        return values[0].ToDouble();
    }

    /// <summary>
    /// Singular values of w1 ⊗ w2 (a convolution's kernel counts to the columns) in falling order. In double precision on the CPU.
    /// </summary>
    /// <param name="count">How many; null for all that the factors can give: those of a low-rank factor beyond its rank are zero and left out.</param>
    public Tensor SingularValues(long? count = null)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor outer = DecomposeOuter().Values;
        Tensor inner = DecomposeInner().Values;
        (Tensor sorted, _) = outer.outer(inner).flatten().sort(descending: true);
        return sorted.narrow(0, 0, Math.Min(count ?? sorted.numel(), sorted.numel())).MoveToOuterDisposeScope();
    }

    /// <summary>The leading singular triplets of scale·(w1 ⊗ w2).</summary>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <param name="choose">How many to take, given all singular values in falling order; at most as many as there are.</param>
    /// <returns>Left vectors out×r, values r, right vectors r×(in·kernel).</returns>
    internal (Tensor Left, Tensor Values, Tensor Right) SingularTriplets(double scale, Func<Tensor, long> choose)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        (Tensor Left, Tensor Values, Tensor Right) outer = DecomposeOuter();
        (Tensor Left, Tensor Values, Tensor Right) inner = DecomposeInner();
        (Tensor sorted, Tensor order) = (outer.Values.outer(inner.Values).flatten() * Math.Abs(scale)).sort(dim: 0, descending: true, stable: true);
        long count = choose(sorted);
        Tensor taken = order.narrow(0, 0, count);
        Tensor i = taken.div(inner.Values.numel(), RoundingMode.floor);
        Tensor j = taken.remainder(inner.Values.numel());
        Tensor left = Product(outer.Left.index_select(1, i), inner.Left.index_select(1, j), 1);
        Tensor right = Product(outer.Right.index_select(1, i), inner.Right.index_select(1, j), inner.Right.shape[0] / N);
        return (
            (scale < 0 ? -left : left).MoveToOuterDisposeScope(),
            sorted.narrow(0, 0, count).MoveToOuterDisposeScope(),
            right.t().MoveToOuterDisposeScope());
    }

    /// <summary>Column by column the Kronecker product of the vectors of both factors, in the order in which the delta has its rows or columns.</summary>
    private Tensor Product(Tensor outer, Tensor inner, long kernel)
    {
        long count = outer.shape[1];
        return IsReversed
            ? (inner.reshape(-1, 1, kernel, count) * outer.reshape(1, -1, 1, count)).reshape(-1, count)
            : (outer.reshape(-1, 1, 1, count) * inner.reshape(1, -1, kernel, count)).reshape(-1, count);
    }

    private (Tensor Left, Tensor Values, Tensor Right) DecomposeOuter()
    {
        List<Tensor> parts = [.. OuterParts().Select(static part => part.cpu().to(float64))];
        return parts.Count == 1 ? Decompose(parts[0]) : DecomposeProduct(parts[1], parts[0]);
    }

    private (Tensor Left, Tensor Values, Tensor Right) DecomposeInner()
    {
        if (Find(FactorNames.W2) is Tensor w2)
        {
            return Decompose(w2.cpu().to(float64).reshape(K, -1));
        }

        Tensor a = Get(FactorNames.W2A).cpu().to(float64);
        Tensor b = Get(FactorNames.W2B).cpu().to(float64);
        return Find(FactorNames.T2) is Tensor core
            ? DecomposeProduct(a.t(), einsum("ijx,jq->iqx", core.cpu().to(float64).reshape(a.shape[0], b.shape[0], -1), b).reshape(a.shape[0], -1))
            : DecomposeProduct(a, b);
    }

    /// <summary>The decomposition of a·b; of its inner size only where that is the smallest.</summary>
    private static (Tensor Left, Tensor Values, Tensor Right) DecomposeProduct(Tensor a, Tensor b)
    {
        if (a.shape[1] >= Math.Min(a.shape[0], b.shape[1]))
        {
            return Decompose(a.mm(b));
        }

        (Tensor qa, Tensor ra) = linalg.qr(a);
        (Tensor qb, Tensor rb) = linalg.qr(b.t());
        (Tensor left, Tensor values, Tensor right) = Decompose(ra.mm(rb.t()));
        return (qa.mm(left), values, qb.mm(right));
    }

    private static (Tensor Left, Tensor Values, Tensor Right) Decompose(Tensor matrix)
    {
        (Tensor left, Tensor values, Tensor right) = linalg.svd(matrix, fullMatrices: false);
        return (left, values, right.t());
    }
}
