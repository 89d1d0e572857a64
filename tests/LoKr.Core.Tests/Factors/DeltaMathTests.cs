using LoKr.Core.Factors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Factors;

/// <summary>Norms, spectra, inner products and distances from the factors against the dense delta, in double precision.</summary>
public sealed class DeltaMathTests
{
    private const double Exact = 1e-9;

    /// <summary>A form of factors for a weight of 24×36, or 24×36×kernel.</summary>
    public static TheoryData<string> Forms => ["full", "low-w2", "low-both", "scalar", "lycoris-ranks", "conv1x1", "conv3x3", "conv-flat", "conv-tucker", "conv1d-reversed"];

    [Theory]
    [MemberData(nameof(Forms))]
    public void Spectrum_is_that_of_the_dense_delta(string form)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = Create(form, 4, 6, 1);
        const double Scale = -0.7;
        Tensor matrix = factors.ToDense(Scale).reshape(24, -1);
        Tensor values = linalg.svdvals(matrix);
        Tensor energy = values.square() / values.square().sum();
        Tensor sums = energy.cumsum(0);
        Tensor shares = values / values.sum();
        double entropy = -(shares * shares.clamp_min(1e-300).log()).sum().ToDouble();

        DeltaSpectrum spectrum = DeltaSpectrum.Of(factors, Scale, shares: 5);

        TensorAssert.Close(matrix.norm().ToDouble(), spectrum.FrobeniusNorm, Exact, "Frobenius norm");
        TensorAssert.Close(values[0].ToDouble(), spectrum.SpectralNorm, Exact, "spectral norm");
        TensorAssert.Close(Math.Exp(entropy), spectrum.EffectiveRank, 1e-6, "effective rank");
        Assert.Equal(Math.Min(5, Positive(values)), spectrum.EnergyShares.Count(static share => share > 1e-12));
        for (int i = 0; i < spectrum.EnergyShares.Count; i++)
        {
            TensorAssert.Close(energy[i].ToDouble(), spectrum.EnergyShares[i], Exact, $"share {i}");
        }

        Assert.Equal(sums.lt(0.9).sum().ToInt64() + 1, spectrum.Rank90);
        Assert.Equal(sums.lt(0.99).sum().ToInt64() + 1, spectrum.Rank99);
    }

    [Fact]
    public void Equal_singular_values_have_their_number_as_effective_rank()
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = new(new Dictionary<string, Tensor> { [FactorNames.W1] = eye(3, dtype: float64), [FactorNames.W2] = eye(5, dtype: float64) * 2 });
        DeltaSpectrum spectrum = DeltaSpectrum.Of(factors, 0.5);
        Assert.Equal(15, spectrum.EffectiveRank, 9);
        Assert.Equal((14, 15), (spectrum.Rank90, spectrum.Rank99));
        Assert.Equal(Math.Sqrt(15), spectrum.FrobeniusNorm, 9);
        Assert.Equal(1, spectrum.SpectralNorm, 9);
        Assert.All(spectrum.EnergyShares, static share => Assert.Equal(1.0 / 15, share, 9));
    }

    [Fact]
    public void Zeros_have_no_rank_and_numbers_that_are_not_finite_have_no_norm()
    {
        using DisposeScope scope = NewDisposeScope();
        Dictionary<string, Tensor> tensors = new() { [FactorNames.W1] = zeros(2, 2), [FactorNames.W2A] = ones(3, 2), [FactorNames.W2B] = ones(2, 3) };
        DeltaSpectrum zero = DeltaSpectrum.Of(new(tensors), 1);
        Assert.Equal((0, 0, 0), (zero.FrobeniusNorm, zero.SpectralNorm, zero.EffectiveRank));
        Assert.Empty(zero.EnergyShares);
        tensors[FactorNames.W1] = full(2, 2, float.NaN);
        Assert.Equal(double.NaN, DeltaSpectrum.Of(new(tensors), 1).FrobeniusNorm);
        Assert.Null(DeltaProducts.Compare(new(tensors), 1, new(tensors), 1));
    }

    [Theory]
    [MemberData(nameof(Forms))]
    public void Products_of_equal_shapes_are_those_of_the_dense_deltas(string form)
    {
        using DisposeScope scope = NewDisposeScope();
        Check(Create(form, 4, 6, 1), Create(form, 4, 6, 2), form);
    }

    /// <summary>Rows and columns of w1 in both: nested one way, nested both ways, and not nested at all.</summary>
    [Theory]
    [InlineData(4, 6, 8, 12)]
    [InlineData(8, 12, 4, 6)]
    [InlineData(4, 12, 8, 6)]
    [InlineData(8, 6, 4, 12)]
    [InlineData(4, 6, 4, 12)]
    [InlineData(1, 1, 24, 36)]
    [InlineData(4, 6, 6, 4)]
    [InlineData(8, 9, 6, 12)]
    public void Products_of_other_shapes_are_those_of_the_dense_deltas(int l, int m, int otherL, int otherM)
    {
        using DisposeScope scope = NewDisposeScope();
        foreach (string form in (string[])["full", "low-w2", "conv3x3"])
        {
            Check(Create(form, l, m, 1), Create(form, otherL, otherM, 2), $"{form} {l}×{m} and {otherL}×{otherM}");
        }
    }

    [Fact]
    public void Convolutions_of_every_form_can_be_compared_with_each_other()
    {
        using DisposeScope scope = NewDisposeScope();
        string[] forms = ["conv3x3", "conv-flat", "conv-tucker"];
        foreach (string a in forms)
        {
            foreach (string b in forms)
            {
                Check(Create(a, 4, 6, 1), Create(b, 8, 9, 2), $"{a} and {b}");
            }
        }

        Check(Create("conv1d-reversed", 4, 6, 1), Create("conv1d", 4, 6, 2), "reversed and not");
        Check(Create("conv1d", 8, 6, 1), Create("conv1d-reversed", 4, 6, 2), "not reversed and reversed");
    }

    /// <summary>A file without its base layer does not tell the kernel: it counts as columns.</summary>
    [Fact]
    public void A_kernel_that_is_not_known_counts_as_columns()
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors known = Create("conv-flat", 4, 6, 1);
        KroneckerFactors unknown = new(known.Tensors);
        DeltaComparison same = DeltaProducts.Compare(known, 0.5, unknown, 0.5)!.Value;
        Assert.Equal(0, same.Distance);
        TensorAssert.Close(DeltaSpectrum.Of(known, 1).EffectiveRank, DeltaSpectrum.Of(unknown, 1).EffectiveRank, Exact, "effective rank");
        KroneckerFactors other = Create("conv3x3", 8, 9, 2);
        TensorAssert.Close(DeltaProducts.Compare(known, 0.5, other, 2)!.Value.Inner, DeltaProducts.Compare(unknown, 0.5, other, 2)!.Value.Inner, Exact, "inner product");
    }

    [Fact]
    public void The_distance_of_close_deltas_is_exact()
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = Create("low-w2", 4, 6, 1);
        Assert.Equal(0, DeltaProducts.Compare(factors, 0.5, factors, 0.5)!.Value.Distance);
        Dictionary<string, Tensor> moved = new(factors.Tensors) { [FactorNames.W1] = factors.Tensors[FactorNames.W1] + 1e-11 };
        double expected = (new KroneckerFactors(moved).ToDense(0.5) - factors.ToDense(0.5)).norm().ToDouble();
        TensorAssert.Close(expected, DeltaProducts.Compare(factors, 0.5, new(moved), 0.5)!.Value.Distance, 1e-4, "distance");
    }

    [Fact]
    public void Deltas_of_weights_of_other_sizes_cannot_be_compared()
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors small = new(new Dictionary<string, Tensor> { [FactorNames.W1] = ones(2, 2), [FactorNames.W2] = ones(2, 2) });
        Assert.Null(DeltaProducts.Compare(small, 1, Create("full", 4, 6, 1), 1));
    }

    private static void Check(KroneckerFactors a, KroneckerFactors b, string what)
    {
        Tensor denseA = a.ToDense(0.3);
        Tensor denseB = b.ToDense(-1.7);
        DeltaComparison values = DeltaProducts.Compare(a, 0.3, b, -1.7)!.Value;
        TensorAssert.Close(denseA.norm().ToDouble(), values.NormA, Exact, $"{what}: norm of a");
        TensorAssert.Close(denseB.norm().ToDouble(), values.NormB, Exact, $"{what}: norm of b");
        TensorAssert.Close((denseA * denseB).sum().ToDouble(), values.Inner, Exact * values.NormA * values.NormB / Math.Abs(values.Inner), $"{what}: inner product");
        TensorAssert.Close((denseA - denseB).norm().ToDouble(), values.Distance, Exact, $"{what}: distance");
    }

    private static long Positive(Tensor values) => values.gt(values[0].ToDouble() * 1e-10).sum().ToInt64();

    private static KroneckerFactors Create(string form, long l, long m, int seed)
    {
        manual_seed((100 * seed) + l + m);
        (long k, long n) = (24 / l, 36 / m);
        const long Rank = 2;
        long[] kernel = form switch
        {
            "conv1x1" => [1, 1],
            "conv3x3" or "conv-flat" or "conv-tucker" => [3, 3],
            "conv1d" or "conv1d-reversed" => [3],
            _ => [],
        };
        long size = kernel.Aggregate(1L, static (product, length) => product * length);
        Dictionary<string, Tensor> tensors = [];
        void Add(string name, params long[] shape) => tensors.Add(name, randn(shape, dtype: float64));
        if (form is "low-both" or "lycoris-ranks")
        {
            Add(FactorNames.W1A, l, form == "low-both" ? Rank : 1);
            Add(FactorNames.W1B, form == "low-both" ? Rank : 1, m);
        }
        else
        {
            Add(FactorNames.W1, l, m);
        }

        switch (form)
        {
            case "low-w2" or "low-both" or "lycoris-ranks" or "conv-flat":
                Add(FactorNames.W2A, k, Rank);
                Add(FactorNames.W2B, Rank, n * size);
                break;
            case "conv-tucker":
                Add(FactorNames.T2, [Rank, Rank, .. kernel]);
                Add(FactorNames.W2A, Rank, k);
                Add(FactorNames.W2B, Rank, n);
                break;
            default:
                Add(FactorNames.W2, [k, n, .. kernel]);
                break;
        }

        if (form == "scalar")
        {
            tensors.Add(FactorNames.Scalar, tensor(-2.5, dtype: float64));
        }

        return new(tensors, kernel, form == "conv1d-reversed");
    }
}
