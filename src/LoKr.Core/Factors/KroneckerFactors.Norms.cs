using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

public sealed partial class KroneckerFactors
{
    /// <summary>Rows of scale·(w1 ⊗ w2): row i is w1[i/k] ⊗ w2[i mod k].</summary>
    /// <param name="indices">Indices of rows, any shape.</param>
    /// <param name="scale">What the rows are multiplied with.</param>
    /// <returns>[indices…, in].</returns>
    internal Tensor Rows(Tensor indices, double scale)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor flat = indices.reshape(-1).to(int64);
        Tensor outerIndex = flat.div(K, RoundingMode.floor);
        Tensor innerIndex = flat.remainder(K);
        Tensor[] parts = OuterParts();
        Tensor outer = parts.Length == 1 ? parts[0].index_select(0, outerIndex) : parts[1].index_select(0, outerIndex).mm(parts[0]);
        Tensor inner = Find(FactorNames.W2) is Tensor w2 ? w2.index_select(0, innerIndex) : Get(FactorNames.W2A).index_select(0, innerIndex).mm(Get(FactorNames.W2B));
        return ((outer * scale).unsqueeze(2) * inner.unsqueeze(1)).reshape([.. indices.shape, InFeatures]).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Squared Euclidean norms of the rows, or of the columns, of weight + scale·(w1 ⊗ w2), kernel included, without building the product:
    /// ‖W‖² + 2⟨W, Δ⟩ + ‖Δ‖². Differentiable in the factors.
    /// </summary>
    /// <param name="weight">Base weight out×in×kernel, in the type of the factors.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <param name="columns">Norms of the columns instead of the rows.</param>
    internal Tensor SquaredNorms(Tensor weight, double scale, bool columns)
    {
        using DisposeScope scope = NewDisposeScope();
        long kernel = Kernel.Product();
        Tensor w1 = W1() * scale;
        Tensor w2 = W2().reshape(K, N, kernel);
        Tensor baseNorms = SquaredBaseNorms(weight.reshape(OutFeatures, InFeatures, kernel), columns);
        Tensor cross = columns ? ColumnProducts(weight, w1, w2, kernel) : RowProducts(weight, w1, w2, kernel);
        Tensor outer = w1.square().sum(dim: columns ? 0L : 1L);
        Tensor inner = columns ? w2.square().sum(new long[] { 0, 2 }) : w2.square().sum(new long[] { 1, 2 });
        Tensor own = IsReversed ? inner.outer(outer) : outer.outer(inner);
        return (baseNorms + (cross.reshape(-1) * 2) + own.reshape(-1)).clamp(min: 0).MoveToOuterDisposeScope();
    }

    private static Tensor SquaredBaseNorms(Tensor weight, bool columns)
    {
        using IDisposable noGrad = no_grad();
        return linalg.vector_norm(weight, 2, columns ? [0, 2] : [1, 2], false).square();
    }

    /// <summary>⟨W[o], Δ[o]⟩ for every row o: first over the columns of w2, then over those of w1.</summary>
    private Tensor RowProducts(Tensor weight, Tensor w1, Tensor w2, long kernel)
    {
        if (IsReversed)
        {
            // W[i2, i1, j2, j1, t]: one slice per i2, so that no copy of the weight is made.
            Tensor view = weight.view(K, L, N, M, kernel);
            return stack([.. Enumerable.Range(0, (int)K).Select(i2 => einsum("lnmt,nt,lm->l", view[i2], w2[i2], w1))]);
        }

        Tensor summed = weight.view(L, K, M, N * kernel).matmul(w2.reshape(1, K, N * kernel, 1)).squeeze(-1);
        return (summed * w1.unsqueeze(1)).sum(dim: -1L);
    }

    /// <summary>⟨W[:, j], Δ[:, j]⟩ for every column j, one row of the outer factor at a time, so that no copy of the weight is made.</summary>
    private Tensor ColumnProducts(Tensor weight, Tensor w1, Tensor w2, long kernel)
    {
        Tensor view = IsReversed ? weight.view(K, L, N, M, kernel) : weight.view(L, K, M, N, kernel);
        Tensor? sum = null;
        for (long i = 0; i < view.shape[0]; i++)
        {
            Tensor part = IsReversed
                ? einsum("lnmt,lm,nt->nm", view[i], w1, w2[i])
                : einsum("kmnt,m,knt->mn", view[i], w1[i], w2);
            sum = sum is null ? part : sum + part;
        }

        return sum!;
    }
}
