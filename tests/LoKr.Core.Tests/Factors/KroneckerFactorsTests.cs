using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Testing;
using TorchSharp;
using Xunit;
using static TorchSharp.torch;

namespace LoKr.Core.Tests.Factors;

/// <summary>The algebra of the factors against the dense matrix, in double precision.</summary>
public sealed class KroneckerFactorsTests
{
    private const double Exact = 1e-10;

    /// <summary>out, in, factor, rank, decompose both: primes, non-square, w1 larger than w2, small and large ranks.</summary>
    public static TheoryData<int, int, int, int, bool> Shapes => new()
    {
        { 7, 13, -1, 1, true },
        { 13, 7, -1, 4, false },
        { 1, 12, -1, 2, true },
        { 48, 48, -1, 8, false },
        { 48, 48, -1, 1, true },
        { 256, 384, -1, 3, false },
        { 384, 256, -1, 3, true },
        { 256, 256, -1, 8, false },
        { 300, 512, 2, 5, true },
        { 512, 60, 64, 2, true },
        { 64, 64, 16, 1, true },
        { 96, 128, 4, 200, false },
        { 96, 128, 4, 200, true },
        { 250, 360, 8, 6, true },
    };

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Every_contraction_order_equals_the_dense_product(int outFeatures, int inFeatures, int factor, int rank, bool both)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = Random(outFeatures, inFeatures, factor, rank, both);
        Tensor dense = factors.ToDense(0.3);
        Tensor x = randn([3, 5, inFeatures], dtype: float64);
        Tensor y = randn([3, 5, outFeatures], dtype: float64);
        Tensor expected = x.matmul(dense.t());
        TensorAssert.Close(expected, factors.Linear.Apply(x, 0.3), Exact, "Apply");
        TensorAssert.Close(y + expected, factors.Linear.AddTo(y, x, 0.3), Exact, "AddTo");

        long? rank1 = factors.Tensors.TryGetValue(FactorNames.W1A, out Tensor? a1) ? a1.shape[1] : null;
        long? rank2 = factors.Tensors.TryGetValue(FactorNames.W2A, out Tensor? a2) ? a2.shape[1] : null;
        int orders = 0;
        foreach (ContractionPlan plan in EveryPlan(rank1 is not null, rank2 is not null))
        {
            TensorAssert.Close(y + expected, factors.Linear.Contract(x, y, 0.3, plan), Exact, plan.ToString());
            TensorAssert.Close(expected, factors.Linear.Contract(x, null, 0.3, plan), Exact, plan.ToString());
            orders++;
        }

        Assert.True(orders >= 2);
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Gradients_equal_those_through_the_dense_product(int outFeatures, int inFeatures, int factor, int rank, bool both)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = Random(outFeatures, inFeatures, factor, rank, both);
        Tensor x = randn([9, inFeatures], dtype: float64).requires_grad_(true);
        Tensor cotangent = randn([9, outFeatures], dtype: float64);
        Tensor[] leaves = [x, .. factors.Tensors.Values.Select(static tensor => tensor.requires_grad_(true))];
        IList<Tensor> expected = autograd.grad([(x.matmul(factors.ToDense(0.3).t()) * cotangent).sum()], leaves);
        bool low1 = factors.Tensors.ContainsKey(FactorNames.W1A);
        bool low2 = factors.Tensors.ContainsKey(FactorNames.W2A);
        foreach (ContractionPlan plan in EveryPlan(low1, low2).Prepend(factors.Linear.Plan(9)))
        {
            IList<Tensor> actual = autograd.grad([(factors.Linear.Contract(x, cotangent, 0.3, plan) * cotangent).sum()], leaves);
            for (int i = 0; i < leaves.Length; i++)
            {
                TensorAssert.Close(expected[i], actual[i], Exact, $"gradient {i}, {plan}");
            }
        }
    }

    [Theory]
    [InlineData(60, 48, 4, 3, 2)]
    [InlineData(48, 60, -1, 2, 3)]
    public void Several_adapters_in_one_pass_add_up(int outFeatures, int inFeatures, int factor, int rank, int count)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors[] all = [.. Enumerable.Range(0, count).Select(_ => Random(outFeatures, inFeatures, factor, rank, false))];
        foreach ((int i, KroneckerFactors factors) in all.Index())
        {
            foreach (Tensor tensor in factors.Tensors.Values)
            {
                // They start out equal, because their seed is that of the shape.
                tensor.mul_(i + 1).requires_grad_(true);
            }
        }

        Assert.True(StackedContraction.Fits(all));
        Assert.False(StackedContraction.Fits([all[0], Random(outFeatures, inFeatures, factor, 1, false)]));
        Assert.False(StackedContraction.Fits([all[0], Random(outFeatures, inFeatures, factor, 100, false)]));
        double[] scales = [.. all.Select(static (_, i) => 0.3 + i)];
        Tensor x = randn([3, 5, inFeatures], dtype: float64).requires_grad_(true);
        Tensor y = randn([3, 5, outFeatures], dtype: float64).requires_grad_(true);
        Tensor expected = y;
        foreach ((int i, KroneckerFactors factors) in all.Index())
        {
            expected = expected + x.matmul(factors.ToDense(scales[i]).t());
        }

        Tensor actual = StackedContraction.AddTo(y, x, all, scales);
        TensorAssert.Close(expected, actual, Exact, "sum");
        Tensor cotangent = randn_like(expected);
        Tensor[] leaves = [x, y, .. all.SelectMany(static factors => factors.Tensors.Values)];
        IList<Tensor> expectedGradients = autograd.grad([(expected * cotangent).sum()], leaves);
        IList<Tensor> actualGradients = autograd.grad([(actual * cotangent).sum()], leaves);
        for (int i = 0; i < leaves.Length; i++)
        {
            TensorAssert.Close(expectedGradients[i], actualGradients[i], Exact, $"gradient {i}");
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Norms_singular_values_merge_and_count_equal_those_of_the_dense_product(int outFeatures, int inFeatures, int factor, int rank, bool both)
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = Random(outFeatures, inFeatures, factor, rank, both);
        Tensor dense = factors.ToDense(1);
        Assert.Equal([outFeatures, inFeatures], dense.shape);
        TensorAssert.Close(kron(factors.W1().contiguous(), factors.W2().contiguous()), dense, Exact, "dense");
        TensorAssert.Close(dense.norm().ToDouble(), factors.FrobeniusNorm(), Exact, "Frobenius norm");
        Tensor values = linalg.svdvals(dense);
        TensorAssert.Close(values[0].ToDouble(), SingularValues.Largest(factors), Exact, "spectral norm");

        // The products hold every singular value that is not zero for reasons of shape.
        Tensor products = SingularValues.Of(factors);
        long count = Math.Min(products.numel(), values.numel());
        TensorAssert.Close(values.narrow(0, 0, count), products.narrow(0, 0, count), Exact, "singular values");
        Tensor weight = randn([outFeatures, inFeatures], dtype: float64);
        Tensor merged = weight.clone();
        FactorMerge.AddTo(merged, factors, 0.7);
        TensorAssert.Close(weight + (dense * 0.7), merged, Exact, "merged");
        Assert.Equal(factors.Tensors.Values.Sum(static tensor => tensor.numel()), factors.ParameterCount);
    }

    [Fact]
    public void Input_may_have_any_leading_dimensions_and_strides()
    {
        using DisposeScope scope = NewDisposeScope();
        KroneckerFactors factors = Random(24, 36, -1, 2, false);
        Tensor dense = factors.ToDense(2);
        Tensor x = randn([36, 4, 5], dtype: float64);
        Tensor transposed = x.permute(2, 1, 0);
        TensorAssert.Close(transposed.matmul(dense.t()), factors.Linear.Apply(transposed, 2), Exact, "permuted");
        TensorAssert.Close(x[TensorIndex.Colon, 0, 0].matmul(dense.t()), factors.Linear.Apply(x[TensorIndex.Colon, 0, 0], 2), Exact, "vector");
        Assert.Equal([0L, 24L], factors.Linear.Apply(zeros([0, 36], dtype: float64), 2).shape);
    }

    [Fact]
    public void The_cheapest_order_keeps_low_rank_factors_apart()
    {
        // 4096×4096, r 16: w2_b, then w1, then w2_a; per token r·(m·n + l·m + l·k), and two intermediate tensors of r·m and r·l numbers.
        ContractionPlan plan = ContractionPlan.Choose(1, 64, 64, 64, 64, null, 16);
        Assert.Equal([false, true, false], plan.Steps);
        Assert.Equal((16 * 3 * 64 * 64) + (16 * 2 * 16 * 64), plan.Cost);
        Assert.False(plan.RankMajor);
        Assert.True(ContractionPlan.Choose(1, 64, 64, 64, 64, null, 8).RankMajor);
        Assert.False(ContractionPlan.Choose(1, 8, 8, 512, 512, null, 8).RankMajor);

        // Full factors: the cheaper of the two orders.
        Assert.Equal([true, false], ContractionPlan.Choose(1, 2, 64, 64, 64, null, null).Steps);
        Assert.Equal([false, true], ContractionPlan.Choose(1, 64, 2, 64, 64, null, null).Steps);
        Assert.False(ContractionPlan.Choose(512, 64, 64, 64, 64, 4, 4).BuildW1);
    }

    [Fact]
    public void Convolution_kernels_and_Tucker_cores_make_the_dense_kernel()
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor w1 = randn([2, 3], dtype: float64);
        Tensor core = randn([2, 4, 3, 3], dtype: float64);
        Tensor a = randn([2, 5], dtype: float64);
        Tensor b = randn([4, 7], dtype: float64);
        KroneckerFactors factors = new(new Dictionary<string, Tensor> { [FactorNames.W1] = w1, [FactorNames.T2] = core, [FactorNames.W2A] = a, [FactorNames.W2B] = b }, [3, 3]);
        Tensor dense = factors.ToDense(1);
        Assert.Equal([10L, 21L, 3L, 3L], dense.shape);
        double expected = 0;
        for (int i = 0; i < 2; i++)
        {
            for (int j = 0; j < 4; j++)
            {
                expected += core[i, j, 1, 2].ToDouble() * a[i, 3].ToDouble() * b[j, 6].ToDouble();
            }
        }

        TensorAssert.Close(expected * w1[1, 2].ToDouble(), dense[(1 * 5) + 3, (2 * 7) + 6, 1, 2].ToDouble(), Exact, "one element");
        TensorAssert.Close(dense.norm().ToDouble(), factors.FrobeniusNorm(), Exact, "norm");
    }

    [Fact]
    public void Factors_that_do_not_fit_are_refused()
    {
        using DisposeScope scope = NewDisposeScope();
        LoKrException missing = Assert.Throws<LoKrException>(static () => new KroneckerFactors(new Dictionary<string, Tensor> { [FactorNames.W1] = zeros(2, 2), [FactorNames.W2A] = zeros(2, 2) }));
        Assert.Equal(ErrorIds.AdapterKeysMismatch, missing.ErrorId);
        LoKrException wrong = Assert.Throws<LoKrException>(static () => new KroneckerFactors(new Dictionary<string, Tensor> { [FactorNames.W1] = zeros(2, 2), [FactorNames.W2A] = zeros(2, 3), [FactorNames.W2B] = zeros(2, 2) }));
        Assert.Equal(ErrorIds.AdapterShapeMismatch, wrong.ErrorId);
    }

    private static KroneckerFactors Random(int outFeatures, int inFeatures, int factor, int rank, bool both)
    {
        manual_seed(outFeatures + (31 * inFeatures) + rank);
        FactorShapes shapes = FactorShapes.Create(outFeatures, inFeatures, [], rank, new() { DecomposeFactor = factor, DecomposeBoth = both });
        return new(shapes.Tensors().ToDictionary(static tensor => tensor.Suffix, static tensor => randn(tensor.Shape, dtype: float64)));
    }

    private static IEnumerable<ContractionPlan> EveryPlan(bool low1, bool low2)
    {
        foreach (bool build1 in low1 ? new[] { false, true } : [false])
        {
            foreach (bool build2 in low2 ? new[] { false, true } : [false])
            {
                int outer = low1 && !build1 ? 2 : 1;
                int inner = low2 && !build2 ? 2 : 1;
                for (int mask = 0; mask < 1 << (outer + inner); mask++)
                {
                    if (System.Numerics.BitOperations.PopCount((uint)mask) == outer)
                    {
                        bool[] steps = [.. Enumerable.Range(0, outer + inner).Select(i => (mask >> i & 1) == 1)];
                        yield return new(build1, build2, steps, false, 0);
                        if (inner == 2 && !steps[0] && !steps[^1])
                        {
                            yield return new(build1, build2, steps, true, 0);
                        }
                    }
                }
            }
        }
    }
}
