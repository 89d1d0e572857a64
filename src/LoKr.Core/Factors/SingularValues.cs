using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// Singular values and vectors of w1 ⊗ w2, from those of w1 and w2 alone: every product of a singular value of w1 and one of w2 is a
/// singular value of w1 ⊗ w2, and its vectors are the Kronecker products of theirs. The kernel of a convolution counts as columns.
/// Everything is computed in double precision on the CPU.
/// </summary>
public static class SingularValues
{
    /// <summary>Computes the singular values of w1 ⊗ w2 in descending order, float64.</summary>
    /// <param name="factors">The factors.</param>
    /// <param name="count">How many; null for all that the factors have: those of a low-rank factor beyond its rank are zero and left out.</param>
    public static Tensor Of(KroneckerFactors factors, long? count = null)
    {
        ArgumentNullException.ThrowIfNull(factors);
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor products = OfW1(factors).outer(OfW2(factors)).flatten();
        (Tensor sorted, _) = products.sort(descending: true);
        return sorted.narrow(0, 0, Math.Min(count ?? sorted.numel(), sorted.numel())).MoveToOuterDisposeScope();
    }

    /// <summary>Computes the spectral norm of w1 ⊗ w2, its largest singular value.</summary>
    public static double Largest(KroneckerFactors factors)
    {
        using Tensor values = Of(factors, 1);
        return values[0].ToDouble();
    }

    /// <summary>The smallest number of leading values whose squares reach a share of the sum of all squares.</summary>
    /// <param name="values">Values in descending order, at least one.</param>
    /// <param name="share">The share, in (0, 1].</param>
    internal static long CountFor(Tensor values, double share)
    {
        Tensor sums = values.square().cumsum(0);
        long below = sums.lt(sums[-1] * share).sum().ToInt64();
        return Math.Min(below + 1, values.numel());
    }

    /// <summary>Computes the singular values of w1, a trained scalar included, in descending order.</summary>
    internal static Tensor OfW1(KroneckerFactors factors)
    {
        Tensor[] steps = [.. factors.OuterSteps().Select(Precise)];
        return steps.Length == 1 ? linalg.svdvals(steps[0]) : linalg.svdvals(Condense(steps[1], steps[0]));
    }

    /// <summary>Computes the singular values of w2 as a matrix whose columns include the kernel, in descending order.</summary>
    internal static Tensor OfW2(KroneckerFactors factors)
    {
        (Tensor left, Tensor? right) = InnerParts(factors);
        return linalg.svdvals(right is null ? left : Condense(left, right));
    }

    /// <summary>Computes the leading singular triplets of scale·(w1 ⊗ w2), right vectors r×(in·kernel).</summary>
    /// <param name="factors">The factors.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <param name="choose">Returns how many to take, given all singular values in descending order; at most as many as there are.</param>
    internal static SingularTriplets Leading(KroneckerFactors factors, double scale, Func<Tensor, long> choose)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        SingularTriplets outer = Outer(factors);
        SingularTriplets inner = Inner(factors);
        Tensor products = outer.Values.outer(inner.Values).flatten() * Math.Abs(scale);
        (Tensor sorted, Tensor order) = products.sort(dim: 0, descending: true, stable: true);
        long count = choose(sorted);
        Tensor taken = order.narrow(0, 0, count);
        Tensor i = taken.div(inner.Values.numel(), RoundingMode.floor);
        Tensor j = taken.remainder(inner.Values.numel());
        Tensor left = Products(outer.Left.index_select(1, i), inner.Left.index_select(1, j), 1, factors.IsReversed);
        Tensor right = Products(outer.Right.index_select(0, i).t(), inner.Right.index_select(0, j).t(), inner.Right.shape[1] / factors.N, factors.IsReversed);
        return new(
            (scale < 0 ? -left : left).MoveToOuterDisposeScope(),
            sorted.narrow(0, 0, count).MoveToOuterDisposeScope(),
            right.t().MoveToOuterDisposeScope());
    }

    /// <summary>The Kronecker product of each pair of columns, in the order in which the delta has its rows or columns.</summary>
    private static Tensor Products(Tensor outer, Tensor inner, long kernel, bool isReversed)
    {
        long count = outer.shape[1];
        return isReversed
            ? (inner.reshape(-1, 1, kernel, count) * outer.reshape(1, -1, 1, count)).reshape(-1, count)
            : (outer.reshape(-1, 1, 1, count) * inner.reshape(1, -1, kernel, count)).reshape(-1, count);
    }

    private static SingularTriplets Outer(KroneckerFactors factors)
    {
        Tensor[] steps = [.. factors.OuterSteps().Select(Precise)];
        return steps.Length == 1 ? Decompose(steps[0]) : DecomposeProduct(steps[1], steps[0]);
    }

    private static SingularTriplets Inner(KroneckerFactors factors)
    {
        (Tensor left, Tensor? right) = InnerParts(factors);
        return right is null ? Decompose(left) : DecomposeProduct(left, right);
    }

    /// <summary>w2 as a matrix k×(n·kernel), or as a product of two.</summary>
    private static (Tensor Left, Tensor? Right) InnerParts(KroneckerFactors factors)
    {
        if (factors.FullW2 is not null)
        {
            return (Precise(factors.FullW2).reshape(factors.K, -1), null);
        }

        Tensor a = Precise(factors.W2A!);
        Tensor b = Precise(factors.W2B!);
        return factors.Core is null
            ? (a, b)
            : (a.t(), einsum("ijx,jq->iqx", Precise(factors.Core).reshape(a.shape[0], b.shape[0], -1), b).reshape(a.shape[0], -1));
    }

    /// <summary>A small matrix with the singular values of a·b that are not zero by its inner size: the product of the triangles of both.</summary>
    private static Tensor Condense(Tensor a, Tensor b)
    {
        if (a.shape[1] >= Math.Min(a.shape[0], b.shape[1]))
        {
            return a.mm(b);
        }

        (_, Tensor ra) = linalg.qr(a);
        (_, Tensor rb) = linalg.qr(b.t());
        return ra.mm(rb.t());
    }

    private static Tensor Precise(Tensor tensor) => tensor.cpu().to(float64);

    /// <summary>Decomposes a·b, by way of the inner size only where that is the smallest.</summary>
    private static SingularTriplets DecomposeProduct(Tensor a, Tensor b)
    {
        if (a.shape[1] >= Math.Min(a.shape[0], b.shape[1]))
        {
            return Decompose(a.mm(b));
        }

        (Tensor qa, Tensor ra) = linalg.qr(a);
        (Tensor qb, Tensor rb) = linalg.qr(b.t());
        SingularTriplets small = Decompose(ra.mm(rb.t()));
        return new(qa.mm(small.Left), small.Values, qb.mm(small.Right.t()).t());
    }

    private static SingularTriplets Decompose(Tensor matrix)
    {
        (Tensor left, Tensor values, Tensor right) = linalg.svd(matrix, fullMatrices: false);
        return new(left, values, right);
    }
}

/// <summary>Singular values with their vectors, float64: matrix = Left·diag(Values)·Right.</summary>
/// <param name="Left">Left vectors as columns.</param>
/// <param name="Values">Singular values in descending order.</param>
/// <param name="Right">Right vectors as rows.</param>
internal sealed record SingularTriplets(Tensor Left, Tensor Values, Tensor Right);
