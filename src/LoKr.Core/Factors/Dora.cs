using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>Meaning of a strength s other than 1 for an adapter with DoRA, whose trained weight is W' = (W + Δ)·q. Programs disagree.</summary>
public enum DoraStrength
{
    /// <summary>W + s·(W' − W), as for an adapter without DoRA: 0 is the base weight, 1 the trained one (ComfyUI).</summary>
    Linear,

    /// <summary>(W + Δ)·(s·(q − 1) + 1): the strength weakens the quotient alone, and 0 is W + Δ (LyCORIS's multiplier).</summary>
    Lycoris,
}

/// <summary>Strength of an adapter.</summary>
/// <param name="Value">The number, 1 as trained.</param>
/// <param name="Dora">Its meaning for DoRA.</param>
internal readonly record struct AdapterStrength(double Value, DoraStrength Dora);

/// <summary>
/// The rules of DoRA on w1 ⊗ w2 as in LyCORIS (<c>weight_decompose</c>, arXiv:2402.09353): W' = (W + Δ)·q with the quotient
/// q = magnitude/(‖W + Δ‖ + ε), norms by output row or by input column.
/// </summary>
internal static class Dora
{
    /// <summary>Shape of the magnitudes in LyCORIS's files: out×1… or 1×in×1….</summary>
    public static long[] MagnitudeShape(long outFeatures, long inFeatures, IReadOnlyList<long> kernel, WeightDecomposeAxis axis) => axis == WeightDecomposeAxis.Output
        ? [outFeatures, 1, .. kernel.Select(static _ => 1L)]
        : [1, inFeatures, .. kernel.Select(static _ => 1L)];

    /// <summary>Computes the quotients q; for LyCORIS's strength s, s·(q − 1) + 1.</summary>
    /// <param name="magnitude">The magnitudes of some rows or columns.</param>
    /// <param name="norms">Norms ‖W + Δ‖ of the same rows or columns.</param>
    /// <param name="strength">Strength of the adapter.</param>
    public static Tensor Quotients(Tensor magnitude, Tensor norms, AdapterStrength strength)
    {
        double epsilon = magnitude.dtype is ScalarType.Float64 ? 2.220446049250313e-16 : 1.1920928955078125e-07;
        Tensor quotients = magnitude / (norms + epsilon);
        return strength.Dora is DoraStrength.Linear || strength.Value == 1 ? quotients : ((quotients - 1) * strength.Value) + 1;
    }

    /// <summary>The part of a change that is applied: s of W' − W, or of the difference of the outputs; all of it for LyCORIS's strength.</summary>
    /// <param name="change">The change, with the <see cref="Quotients"/> of the same strength.</param>
    /// <param name="strength">Strength of the adapter.</param>
    public static Tensor Applied(Tensor change, AdapterStrength strength) =>
        strength.Dora is DoraStrength.Lycoris || strength.Value == 1 ? change : change * strength.Value;

    /// <summary>
    /// Computes squared Euclidean norms of the rows, or of the columns, of W + scale·(w1 ⊗ w2), kernel included, without forming the product:
    /// ‖W‖² + 2⟨W, Δ⟩ + ‖Δ‖². Differentiable in the factors.
    /// </summary>
    /// <param name="factors">The factors.</param>
    /// <param name="weight">Base weight out×in×kernel, in the type of the factors.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <param name="axis">Output for the norms of rows, input for those of columns.</param>
    public static Tensor SquaredNorms(KroneckerFactors factors, Tensor weight, double scale, WeightDecomposeAxis axis)
    {
        using DisposeScope scope = NewDisposeScope();
        bool byColumn = axis == WeightDecomposeAxis.Input;
        long kernel = factors.Kernel.Product();
        Tensor w1 = factors.W1() * scale;
        Tensor w2 = factors.W2().reshape(factors.K, factors.N, kernel);
        Tensor baseNorms = SquaredBaseNorms(weight.reshape(factors.OutFeatures, factors.InFeatures, kernel), byColumn);
        Tensor cross = byColumn ? ColumnProducts(factors, weight, w1, w2) : RowProducts(factors, weight, w1, w2);
        Tensor outer = w1.square().sum(dim: byColumn ? 0L : 1L);
        Tensor inner = byColumn ? w2.square().sum(new long[] { 0, 2 }) : w2.square().sum(new long[] { 1, 2 });
        Tensor own = factors.IsReversed ? inner.outer(outer) : outer.outer(inner);
        return (baseNorms + (cross.reshape(-1) * 2) + own.reshape(-1)).clamp(min: 0).MoveToOuterDisposeScope();
    }

    private static Tensor SquaredBaseNorms(Tensor weight, bool byColumn)
    {
        using IDisposable noGrad = no_grad();
        return linalg.vector_norm(weight, 2, byColumn ? [0, 2] : [1, 2], false).square();
    }

    /// <summary>⟨W[o], Δ[o]⟩ for every row o: first over the columns of w2, then over those of w1.</summary>
    private static Tensor RowProducts(KroneckerFactors factors, Tensor weight, Tensor w1, Tensor w2)
    {
        (long l, long m, long k, long n, long kernel) = (factors.L, factors.M, factors.K, factors.N, w2.shape[2]);
        if (factors.IsReversed)
        {
            // W[i2, i1, j2, j1, t]: one slice per i2, so that no copy of the weight is made.
            Tensor view = weight.view(k, l, n, m, kernel);
            return stack([.. Enumerable.Range(0, (int)k).Select(i2 => einsum("lnmt,nt,lm->l", view[i2], w2[i2], w1))]);
        }

        Tensor summed = weight.view(l, k, m, n * kernel).matmul(w2.reshape(1, k, n * kernel, 1)).squeeze(-1);
        return (summed * w1.unsqueeze(1)).sum(dim: -1L);
    }

    /// <summary>⟨W[:, j], Δ[:, j]⟩ for every column j, one row of the outer factor at a time, so that no copy of the weight is made.</summary>
    private static Tensor ColumnProducts(KroneckerFactors factors, Tensor weight, Tensor w1, Tensor w2)
    {
        (long l, long m, long k, long n, long kernel) = (factors.L, factors.M, factors.K, factors.N, w2.shape[2]);
        Tensor view = factors.IsReversed ? weight.view(k, l, n, m, kernel) : weight.view(l, k, m, n, kernel);
        Tensor? sum = null;
        for (long i = 0; i < view.shape[0]; i++)
        {
            Tensor part = factors.IsReversed
                ? einsum("lnmt,lm,nt->nm", view[i], w1, w2[i])
                : einsum("kmnt,m,knt->mn", view[i], w1[i], w2);
            sum = sum is null ? part : sum + part;
        }

        return sum!;
    }
}
