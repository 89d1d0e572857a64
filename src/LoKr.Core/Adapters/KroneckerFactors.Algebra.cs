using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

public sealed partial class KroneckerFactors
{
    /// <summary>w1, l×m; multiplied out when it is a low-rank product.</summary>
    public Tensor W1() => Find(FactorNames.W1) is Tensor w1 ? w1.alias() : Get(FactorNames.W1A).mm(Get(FactorNames.W1B));

    /// <summary>w2, k×n×kernel; multiplied out when it is a low-rank product.</summary>
    public Tensor W2()
    {
        if (Find(FactorNames.W2) is Tensor w2)
        {
            return w2.alias();
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor a = Get(FactorNames.W2A);
        Tensor b = Get(FactorNames.W2B);
        Tensor product = Find(FactorNames.T2) is Tensor core
            ? einsum("ij...,ip,jq->pq...", core, a, b)
            : a.mm(b);
        return product.reshape([K, N, .. Kernel]).MoveToOuterDisposeScope();
    }

    /// <summary>The dense w1 ⊗ w2 times a scale, out×in×kernel; for inspection and tests, never used by training.</summary>
    public Tensor ToDense(double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor w1 = W1();
        Tensor outer = (scale == 1 ? w1 : w1 * scale).reshape([L, 1, M, 1, .. Kernel.Select(static _ => 1L)]);
        Tensor inner = W2().reshape([1, K, 1, N, .. Kernel]);
        return (outer * inner).reshape([OutFeatures, InFeatures, .. Kernel]).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Adds scale·(w1 ⊗ w2) into a weight of any floating-point type, in place. A weight of lower precision than the
    /// factors is rounded once, after the sum.
    /// </summary>
    /// <param name="weight">Base weight, out×in×kernel.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    public void MergeInto(Tensor weight, double scale)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor target = weight.dtype == DType && weight.is_contiguous() ? weight : weight.to(DType, copy: true).contiguous();
        Tensor w1 = W1().to(target.device).reshape([L, 1, M, 1, .. Kernel.Select(static _ => 1L)]);
        Tensor w2 = W2().to(target.device).reshape([1, K, 1, N, .. Kernel]);
        target.view([L, K, M, N, .. Kernel]).addcmul_(w1, w2, scale);
        if (!ReferenceEquals(target, weight))
        {
            weight.copy_(target.view(weight.shape));
        }
    }

    /// <summary>Frobenius norm of w1 ⊗ w2, from the factors: ‖w1‖·‖w2‖.</summary>
    public double FrobeniusNorm()
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        return linalg.norm(W1()).ToDouble() * linalg.norm(W2().flatten()).ToDouble();
    }

    /// <summary>Largest singular value of w1 ⊗ w2 (a convolution's kernel counts to the columns), from the factors.</summary>
    public double SpectralNorm()
    {
        using Tensor values = SingularValues(1);
        return values[0].ToDouble();
    }

    /// <summary>
    /// Singular values of w1 ⊗ w2 (a convolution's kernel counts to the columns) in falling order: every product of one
    /// of w1's and one of w2's. In double precision on the CPU.
    /// </summary>
    /// <param name="count">How many; null for all min(l,m)·min(k,n·kernel) of them.</param>
    public Tensor SingularValues(long? count = null)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        Tensor outer = linalg.svdvals(W1().cpu().to(float64));
        Tensor inner = linalg.svdvals(W2().cpu().to(float64).reshape(K, -1));
        Tensor products = outer.outer(inner).flatten();
        (Tensor sorted, _) = products.sort(descending: true);
        return sorted.narrow(0, 0, Math.Min(count ?? sorted.numel(), sorted.numel())).MoveToOuterDisposeScope();
    }
}
