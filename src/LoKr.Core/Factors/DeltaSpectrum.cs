using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// Norms and singular values of one delta scale·(w1 ⊗ w2) in numbers, from the factors alone: norms and singular values of a Kronecker
/// product are the products of those of its factors, and the entropy behind the effective rank is their sum. The kernel of a convolution
/// counts as columns. Every number is NaN where a factor is not finite.
/// </summary>
internal sealed record DeltaSpectrum
{
    /// <summary>Square root of the sum of all squares, ‖Δ‖.</summary>
    public required double FrobeniusNorm { get; init; }

    /// <summary>The largest singular value.</summary>
    public required double SpectralNorm { get; init; }

    /// <summary>
    /// exp(entropy) of the singular values as shares of their sum (Roy and Vetterli, EUSIPCO 2007): n for n equal values, 1 for a single one,
    /// 0 for a delta of zeros.
    /// </summary>
    public required double EffectiveRank { get; init; }

    /// <summary>Shares of the squared norm that the largest singular values have, in descending order.</summary>
    public required IReadOnlyList<double> EnergyShares { get; init; }

    /// <summary>The fewest singular values that have 90% of the squared norm together.</summary>
    public required long Rank90 { get; init; }

    /// <summary>The fewest singular values that have 99% of the squared norm together.</summary>
    public required long Rank99 { get; init; }

    /// <summary>Computes the numbers in double precision on the CPU.</summary>
    /// <param name="factors">The factors.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <param name="shares">Most shares to list.</param>
    public static DeltaSpectrum Of(KroneckerFactors factors, double scale, int shares = 8)
    {
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        if (!double.IsFinite(scale) || factors.Tensors.Where(static pair => pair.Key != FactorNames.DoraScale).Any(static pair => !pair.Value.isfinite().all().ToBoolean()))
        {
            return new() { FrobeniusNorm = double.NaN, SpectralNorm = double.NaN, EffectiveRank = double.NaN, EnergyShares = [], Rank90 = 0, Rank99 = 0 };
        }

        Tensor outer = SingularValues.OfW1(factors);
        Tensor inner = SingularValues.OfW2(factors);
        double norm = Norm(outer) * Norm(inner);
        if (norm == 0 || scale == 0)
        {
            return new() { FrobeniusNorm = 0, SpectralNorm = 0, EffectiveRank = 0, EnergyShares = [], Rank90 = 0, Rank99 = 0 };
        }

        // Shares before the product: squares of very small numbers would vanish.
        Tensor energy = (outer / Norm(outer)).square().outer((inner / Norm(inner)).square()).flatten().sort(descending: true).Values;
        Tensor sums = energy.cumsum(0);
        return new()
        {
            FrobeniusNorm = Math.Abs(scale) * norm,
            SpectralNorm = Math.Abs(scale) * outer[0].ToDouble() * inner[0].ToDouble(),
            EffectiveRank = Math.Exp(Entropy(outer) + Entropy(inner)),
            EnergyShares = energy.narrow(0, 0, Math.Min(shares, energy.numel())).data<double>().ToArray(),
            Rank90 = Reach(sums, 0.9),
            Rank99 = Reach(sums, 0.99),
        };
    }

    private static double Norm(Tensor values) => linalg.vector_norm(values, 2).ToDouble();

    private static double Entropy(Tensor values)
    {
        Tensor shares = values / values.sum();
        return -special.xlog1py(shares, shares - 1).sum().ToDouble();
    }

    // Rounding may leave the last sum a little below 1.
    private static long Reach(Tensor sums, double share) => Math.Min(sums.lt(share * (1 - 1e-12)).sum().ToInt64() + 1, sums.numel());
}
