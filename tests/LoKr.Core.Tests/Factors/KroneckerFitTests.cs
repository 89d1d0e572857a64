using System.Globalization;
using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Factors;
using LoKr.Core.Safetensors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Factors;

/// <summary>Nearest Kronecker products of dense deltas and of sums of products, against the best ones of the fixtures.</summary>
public sealed class KroneckerFitTests
{
    public static TheoryData<string> Pairs => Fixtures.Cases("algebra/extract");

    [Theory]
    [MemberData(nameof(Pairs))]
    public void A_delta_is_fitted_as_well_as_the_reference_fits_it(string name)
    {
        string folder = Fixtures.Require("algebra", "extract", name);
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(folder, "case.json")));
        JsonElement expected = document.RootElement;
        using DisposeScope scope = NewDisposeScope();
        using SafetensorsReader pair = SafetensorsReader.Open(Path.Combine(folder, "pair.safetensors"));
        Tensor delta = pair.Read("tuned.weight", float64) - pair.Read("base.weight", float64);
        long[] kernel = [.. delta.shape.Skip(2)];
        int checks = 0;
        foreach (JsonElement factor in expected.GetProperty("factors").EnumerateArray())
        {
            FactorShapes shapes = Shapes(factor, kernel);
            Check(delta, shapes, factor.GetProperty("error").GetDouble(), $"factor {factor.GetProperty("factor")}");
            foreach (JsonProperty rank in factor.GetProperty("ranks").EnumerateObject())
            {
                string[] words = rank.Name.Split(' ');
                FactorShapes low = shapes with { Rank = long.Parse(words[0], CultureInfo.InvariantCulture), LowRankW2 = true, Tucker = words.Length > 1 };
                Check(delta, low, rank.Value.GetProperty("alternating_from_nearest").GetDouble(), $"factor {factor.GetProperty("factor")} rank {rank.Name}");
                Assert.Equal(rank.Value.GetProperty("parameters").GetInt64(), low.ParameterCount);
                checks++;
            }

            if (factor.TryGetProperty("unbalanced", out JsonElement unbalanced))
            {
                Check(delta, Shapes(unbalanced, kernel), unbalanced.GetProperty("error").GetDouble(), "unbalanced");
            }

            if (factor.TryGetProperty("peft_whole_w2_error", out JsonElement reversed))
            {
                Check(delta, shapes with { Reversed = true }, reversed.GetDouble(), "reversed");
            }
        }

        foreach (JsonProperty rank in expected.GetProperty("w1_low_rank_too").EnumerateObject())
        {
            // A factor with the shapes of one that is listed before is not listed again.
            LoKrConfig config = new() { DecomposeFactor = rank.Value.GetProperty("factor").GetInt32() };
            FactorShapes shapes = FactorShapes.Create(delta.shape[0], delta.shape[1], kernel, int.Parse(rank.Name, CultureInfo.InvariantCulture), config);
            Check(delta, shapes with { LowRankW1 = true, LowRankW2 = true }, rank.Value.GetProperty("alternating_from_nearest").GetDouble(), $"both rank {rank.Name}");
        }

        Assert.True(checks > 0);
    }

    [Theory]
    [InlineData(4, 4, 2, 8)]
    [InlineData(2, 8, 4, 4)]
    [InlineData(8, 2, 2, 8)]
    [InlineData(4, 4, 4, 4)]
    [InlineData(6, 4, 4, 4)]
    public void A_sum_of_products_is_the_same_matrix_as_its_dense_delta(long l, long m, long wantedL, long wantedM)
    {
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(3);
        KroneckerFactors first = Factors(l, m, 48 / l, 32 / m);
        KroneckerFactors second = Factors(2, 4, 24, 8);
        FactorShapes shapes = new(wantedL, wantedM, 48 / wantedL, 32 / wantedM, [3, 3], 1, false, false, false);
        KroneckerTarget dense = KroneckerTarget.Of((first.ToDense(0.6) + second.ToDense(-2)).to(float64), shapes);
        KroneckerTarget sum = KroneckerTarget.Of([(first, 0.6), (second, -2)], shapes);
        Tensor columns = randn(dense.Columns, 3, dtype: float64);
        Tensor rows = randn(dense.Rows, 3, dtype: float64);
        TensorAssert.Close(dense.SquaredNorm, sum.SquaredNorm, 1e-12, "squared norm");
        Assert.True((dense.Times(columns) - sum.Times(columns)).abs().max().ToDouble() < 1e-10);
        Assert.True((dense.TransposedTimes(rows) - sum.TransposedTimes(rows)).abs().max().ToDouble() < 1e-10);
    }

    [Theory]
    [InlineData(8, 8, 160, 120, false)]
    [InlineData(2, 8, 160, 480, true)]
    [InlineData(40, 8, 32, 120, false)]
    public void A_difference_is_rearranged_in_blocks(long l, long m, long k, long n, bool reversed)
    {
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(11);
        FactorShapes shapes = new(l, m, k, n, [], 1, false, false, false, reversed);
        Tensor before = randn(l * k, m * n).to(bfloat16);
        Tensor after = before + (randn(l * k, m * n, dtype: float64) * 0.01).to(bfloat16);
        KroneckerTarget expected = KroneckerTarget.Of(after.to(float64) - before.to(float64), shapes);
        KroneckerTarget target = KroneckerTarget.OfDifference(after, before, empty(after.numel()), shapes);
        Assert.Equal(float32, target.DType);
        TensorAssert.Close(expected.SquaredNorm, target.SquaredNorm, 1e-6, "squared norm");
        Tensor columns = randn(target.Columns, 2, dtype: float64);
        Assert.InRange(Distance(expected.Times(columns), target.Times(columns.to(float32))), 0, 1e-5);
        Assert.InRange(Distance(expected.Square(), target.Square()), 0, 1e-5);

        static double Distance(Tensor wanted, Tensor actual) => ((actual - wanted).norm() / wanted.norm()).ToDouble();
    }

    [Fact]
    public void A_delta_within_a_span_is_the_same_in_its_basis()
    {
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(4);
        KroneckerFactors factors = Factors(4, 4, 12, 8);
        FactorShapes shapes = new(4, 4, 12, 8, [3, 3], 1, false, false, false);
        Tensor basis = linalg.qr(randn(16, 2, dtype: float64)).Q;
        Tensor expected = basis.t().mm(kron(factors.W1().reshape(-1, 1), factors.W2().reshape(1, -1)));
        foreach (KroneckerTarget target in new[] { KroneckerTarget.Of(factors.ToDense(1).to(float64), shapes), KroneckerTarget.Of([(factors, 1.0)], shapes) })
        {
            (KroneckerTarget within, FactorShapes inner) = target.Within(basis, shapes);
            Assert.Equal((2, 1, 12, 8), (inner.L, inner.M, inner.K, inner.N));
            Assert.True((within.Times(eye(within.Columns, dtype: float64)) - expected).abs().max().ToDouble() < 1e-10);
        }
    }

    [Fact]
    public void A_large_delta_whose_w1_has_many_numbers_is_looked_at_few_times()
    {
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(9);
        FactorShapes shapes = new(24, 20, 36, 40, [], 6, false, true, false);
        Tensor delta = randn(24 * 36, 20 * 40);
        CountingTarget target = new(KroneckerTarget.Of(delta, shapes), shapes);
        FittedFactors fitted = KroneckerFit.Fit(target, shapes);
        FittedFactors precise = KroneckerFit.Fit(KroneckerTarget.Of(delta.to(float64), shapes), shapes);
        Assert.InRange(fitted.Error, 0, precise.Error * (1 + 1e-4));

        // From the nearest full factors it takes twice as many.
        Assert.InRange(target.Looks, 1, 100);
    }

    [Fact]
    public void A_flat_spectrum_of_a_large_matrix_is_found()
    {
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(5);
        Tensor matrix = randn(300, 400, dtype: float64);
        double expected = linalg.svdvals(matrix)[0].ToDouble();
        (_, Tensor values) = LeadingSubspace.Find(new MatrixMap(matrix), 1, float64);
        TensorAssert.Close(expected, values[0].ToDouble(), 1e-6, "largest singular value");
    }

    [Theory]
    [InlineData(4, 4, 160, 144, 6, 0.3)]
    [InlineData(4, 4, 160, 144, 6, 3.0)]
    [InlineData(20, 16, 32, 36, 4, 1.0)]
    [InlineData(20, 16, 32, 36, 40, 1.0)]
    public void A_delta_in_float32_is_fitted_as_well_as_one_in_float64(int l, int m, int k, int n, int rank, double noise)
    {
        using DisposeScope scope = NewDisposeScope();
        random.manual_seed(7);
        FactorShapes shapes = new(l, m, k, n, [], rank, false, rank < 40, false);
        Tensor product = kron(randn(l, m, dtype: float64), randn(k, 3, dtype: float64).mm(randn(3, n, dtype: float64)));
        Tensor delta = product + (randn_like(product) * noise);
        FittedFactors expected = KroneckerFit.Fit(KroneckerTarget.Of(delta, shapes), shapes);
        Check(delta.to(float32), shapes, expected.Error, "float32");
    }

    [Fact]
    public void Zeros_are_fitted_by_zeros()
    {
        using DisposeScope scope = NewDisposeScope();
        FactorShapes shapes = new(2, 2, 3, 4, [], 2, false, true, false);
        FittedFactors fitted = KroneckerFit.Fit(KroneckerTarget.Of(zeros(6, 8, dtype: float64), shapes), shapes);
        Assert.Equal(0, fitted.Error);
        Assert.Equal(0, new KroneckerFactors(fitted.Tensors).FrobeniusNorm());
    }

    private static void Check(Tensor delta, FactorShapes shapes, double expected, string what)
    {
        using DisposeScope scope = NewDisposeScope();
        FittedFactors fitted = KroneckerFit.Fit(KroneckerTarget.Of(delta, shapes), shapes);
        KroneckerFactors factors = new(fitted.Tensors, shapes.Kernel, shapes.Reversed);
        double error = ((factors.ToDense(1) - delta).norm() / delta.norm()).ToDouble();
        Assert.True(error <= (expected * (1 + 1e-4)) + 1e-6, $"{what}: error {error}, the reference has {expected}");
        Assert.True(Math.Abs(error - fitted.Error) < (delta.dtype == float64 ? 1e-7 : 1e-5), $"{what}: error {error}, said to be {fitted.Error}");
        TensorAssert.Close(linalg.norm(factors.W1()).ToDouble(), linalg.norm(factors.W2().flatten()).ToDouble(), 1e-9, "norms of the factors");
    }

    /// <summary>Counts how often all numbers of a delta are looked at.</summary>
    private sealed class CountingTarget(KroneckerTarget inner, FactorShapes shapes) : KroneckerTarget(shapes)
    {
        public int Looks { get; private set; }

        public override ScalarType DType => inner.DType;

        public override double SquaredNorm => inner.SquaredNorm;

        public override Tensor Times(Tensor columns)
        {
            Looks++;
            return inner.Times(columns);
        }

        public override Tensor TransposedTimes(Tensor rows)
        {
            Looks++;
            return inner.TransposedTimes(rows);
        }

        public override Tensor Square()
        {
            Looks++;
            return inner.Square();
        }
    }

    private static FactorShapes Shapes(JsonElement factor, long[] kernel)
    {
        long[] w1 = [.. factor.GetProperty("w1").EnumerateArray().Select(static size => size.GetInt64())];
        long[] w2 = [.. factor.GetProperty("w2").EnumerateArray().Select(static size => size.GetInt64())];
        return new(w1[0], w1[1], w2[0], w2[1], kernel, 1, false, false, false);
    }

    private static KroneckerFactors Factors(long l, long m, long k, long n) => new(
        new Dictionary<string, Tensor> { [FactorNames.W1] = randn(l, m, dtype: float64), [FactorNames.W2] = randn([k, n, 3, 3], dtype: float64) }, [3, 3]);
}
