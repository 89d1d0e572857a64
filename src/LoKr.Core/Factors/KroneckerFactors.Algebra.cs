using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

public sealed partial class KroneckerFactors
{
    /// <summary>w1, l×m; multiplied out when it is a low-rank product.</summary>
    public Tensor W1()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor[] parts = OuterParts();
        return (parts.Length == 1 ? parts[0].alias() : parts[1].mm(parts[0])).MoveToOuterDisposeScope();
    }

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
            ? einsum("ijx,ip,jq->pqx", core.reshape(a.shape[0], b.shape[0], -1), a, b)
            : a.mm(b);
        return product.reshape([K, N, .. Kernel]).MoveToOuterDisposeScope();
    }

    /// <summary>The dense w1 ⊗ w2 times a scale, out×in×kernel; for inspection and tests, never used by training.</summary>
    public Tensor ToDense(double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor w1 = W1();
        Tensor outer = Outer(scale == 1 ? w1 : w1 * scale);
        Tensor inner = Inner(W2());
        return (outer * inner).reshape([OutFeatures, InFeatures, .. Kernel]).MoveToOuterDisposeScope();
    }

    /// <summary>w1 in a shape that broadcasts with <see cref="Inner"/> to the rows and columns of the delta.</summary>
    private Tensor Outer(Tensor w1) => w1.reshape([.. IsReversed ? [1, L, 1, M] : (long[])[L, 1, M, 1], .. Kernel.Select(static _ => 1L)]);

    private Tensor Inner(Tensor w2) => w2.reshape([.. IsReversed ? [K, 1, N, 1] : (long[])[1, K, 1, N], .. Kernel]);

    /// <summary>Frobenius norm of w1 ⊗ w2, from the factors: ‖w1‖·‖w2‖.</summary>
    public double FrobeniusNorm()
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        return linalg.norm(W1()).ToDouble() * linalg.norm(W2().flatten()).ToDouble();
    }
}
