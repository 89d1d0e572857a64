using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// The linear map x ↦ scale·x·(w1 ⊗ w2)ᵀ without the product w1 ⊗ w2. Each number of tokens has its cheapest order of contractions, which
/// is worked out once.
/// </summary>
public sealed class LinearContraction
{
    // Batches of every length would otherwise fill the memory with plans.
    private const int MostPlans = 256;

    private readonly KroneckerFactors _factors;
    private readonly Dictionary<long, ContractionPlan> _plans = [];

    internal LinearContraction(KroneckerFactors factors)
    {
        if (factors.Kernel.Count > 0)
        {
            throw new InvalidOperationException("Factors of a convolution were applied as those of a linear layer.");
        }

        _factors = factors;
    }

    /// <summary>Computes scale·x·(w1 ⊗ w2)ᵀ.</summary>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <returns>[..., out].</returns>
    public Tensor Apply(Tensor x, double scale) => Contract(x, null, scale, Plan(x.numel() / _factors.InFeatures));

    /// <summary>Computes y + scale·x·(w1 ⊗ w2)ᵀ; the last contraction accumulates into the sum.</summary>
    /// <param name="y">Summand [..., out] in the type of the factors; not modified.</param>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <returns>A new tensor [..., out].</returns>
    public Tensor AddTo(Tensor y, Tensor x, double scale) => Contract(x, y, scale, Plan(x.numel() / _factors.InFeatures));

    /// <summary>Contracts in a given order.</summary>
    internal Tensor Contract(Tensor x, Tensor? y, double scale, ContractionPlan plan)
    {
        using DisposeScope scope = NewDisposeScope();
        long tokens = x.numel() / _factors.InFeatures;
        Tensor[] outer = plan.BuildW1 ? [_factors.W1()] : _factors.OuterSteps();
        Tensor[] inner = _factors.FullW2 is not null ? [_factors.FullW2]
            : plan.BuildW2 ? [_factors.W2()]
            : [_factors.W2B!, _factors.W2A!];
        FoldScale(outer, inner, scale);
        Tensor? sum = y?.reshape(tokens * _factors.L, _factors.K);
        Tensor result = plan.RankMajor
            ? RankMajor(x, sum, outer, inner, tokens)
            : TokenMajor(x, sum, outer, inner, plan.Steps, tokens);
        return WithLastDimension(result, x, _factors.OutFeatures).MoveToOuterDisposeScope();
    }

    /// <summary>The cheapest order for a number of tokens.</summary>
    internal ContractionPlan Plan(long tokens)
    {
        if (!_plans.TryGetValue(tokens, out ContractionPlan? plan))
        {
            if (_plans.Count >= MostPlans)
            {
                _plans.Clear();
            }

            plan = ContractionPlan.Choose(
                tokens, _factors.L, _factors.M, _factors.K, _factors.N, _factors.W1A?.shape[1], _factors.W2A?.shape[1]);
            _plans.Add(tokens, plan);
        }

        return plan;
    }

    /// <summary>Gives the rows of a product the leading dimensions of an input.</summary>
    internal static Tensor WithLastDimension(Tensor rows, Tensor x, long size)
    {
        if (x.dim() == 2)
        {
            return rows.view(x.size(0), size);
        }

        long[] shape = x.shape;
        shape[^1] = size;
        return rows.view(shape);
    }

    /// <summary>Multiplies the smallest matrix with the scale: fewer multiplications, and one pass less over the output.</summary>
    private static void FoldScale(Tensor[] outer, Tensor[] inner, double scale)
    {
        if (scale == 1)
        {
            return;
        }

        (Tensor[] parts, int index) = (outer, 0);
        long smallest = long.MaxValue;
        foreach (Tensor[] candidates in (Tensor[][])[outer, inner])
        {
            for (int i = 0; i < candidates.Length; i++)
            {
                long size = candidates[i].numel();
                if (size < smallest)
                {
                    (parts, index, smallest) = (candidates, i, size);
                }
            }
        }

        parts[index] = parts[index] * scale;
    }

    /// <summary>Inner, outer…, inner with the rank in front: every stage is one large product instead of one small product per token.</summary>
    private Tensor RankMajor(Tensor x, Tensor? sum, Tensor[] outer, Tensor[] inner, long tokens)
    {
        long rank = inner[0].shape[0];
        Tensor h = inner[0].mm(x.reshape(tokens * _factors.M, _factors.N).t());
        long rows = _factors.M;
        foreach (Tensor factor in outer)
        {
            h = h.view(rank * tokens, rows).mm(factor.t());
            rows = factor.shape[0];
        }

        return Multiply(h.view(rank, tokens * _factors.L).t(), inner[1], sum);
    }

    private Tensor TokenMajor(Tensor x, Tensor? sum, Tensor[] outer, Tensor[] inner, IReadOnlyList<bool> steps, long tokens)
    {
        Tensor h = x;
        long rows = _factors.M;
        long columns = _factors.N;
        int o = 0;
        int i = 0;
        for (int step = 0; step < steps.Count; step++)
        {
            Tensor? target = step == steps.Count - 1 ? sum : null;
            if (steps[step])
            {
                Tensor factor = outer[o++];
                long height = factor.shape[0];

                // A stride of zero costs no memory, and the batched product takes it as it is.
                Tensor batch = factor.expand(tokens, height, rows);
                h = h.reshape(tokens, rows, columns);
                h = target is null ? batch.bmm(h) : batch.baddbmm(h, target.view(tokens, _factors.L, _factors.K), 1f, 1f);
                rows = height;
            }
            else
            {
                Tensor factor = inner[i++];
                h = Multiply(h.reshape(tokens * rows, columns), factor, target);
                columns = factor.shape[0];
            }
        }

        return h;
    }

    private static Tensor Multiply(Tensor x, Tensor factor, Tensor? sum)
    {
        // A tall factor of few columns (w2_a) is copied into wide form: autograd then forms its gradient as wide·tall. At 8 columns that
        // is several times faster on the CPU; from 16 on the copy costs more than it saves.
        Tensor transposed = factor.shape is [long height, <= 8 and long width] && height > width ? factor.t().contiguous() : factor.t();
        return sum is null ? x.mm(transposed) : sum.addmm(x, transposed, 1f, 1f);
    }
}

/// <summary>
/// The cheapest order in which the factors are applied to an input of T tokens, each an m×n matrix that becomes l×k.
/// Outer steps (w1 or its two parts) change m to l, inner steps (w2 or its two parts) change n to k; they commute.
/// </summary>
/// <param name="BuildW1">Multiply a low-rank w1 out first.</param>
/// <param name="BuildW2">Multiply a low-rank w2 out first.</param>
/// <param name="Steps">The steps; true for an outer one.</param>
/// <param name="RankMajor">Whether the intermediate tensors hold the rank first (inner, outer…, inner steps only).</param>
/// <param name="Cost">
/// Multiply-adds, and the passes over memory that count as much. The backward pass does every product twice more (for the input and for
/// the factor) and goes over every intermediate tensor in the same proportion: what is cheapest forward is cheapest in all.
/// </param>
internal sealed record ContractionPlan(bool BuildW1, bool BuildW2, IReadOnlyList<bool> Steps, bool RankMajor, double Cost)
{
    /// <summary>Narrower products take as long as one of this width; so do the vector units of CPUs and the tiles of GPUs.</summary>
    private const long NarrowestProduct = 16;

    /// <summary>Multiply-adds in the time in which one number is written and read again.</summary>
    internal const double IntermediateCost = 16;

    /// <summary>Chooses the order by cost.</summary>
    /// <param name="tokens">Number of tokens.</param>
    /// <param name="l">Rows of w1.</param>
    /// <param name="m">Columns of w1.</param>
    /// <param name="k">Rows of w2.</param>
    /// <param name="n">Columns of w2.</param>
    /// <param name="rank1">Inner size of a low-rank w1; null when it is full.</param>
    /// <param name="rank2">Inner size of a low-rank w2; null when it is full.</param>
    public static ContractionPlan Choose(long tokens, long l, long m, long k, long n, long? rank1, long? rank2)
    {
        ContractionPlan? best = null;
        foreach (bool build1 in Choices(rank1))
        {
            foreach (bool build2 in Choices(rank2))
            {
                long[] outer = rank1 is long r1 && !build1 ? [m, r1, l] : [m, l];
                long[] inner = rank2 is long r2 && !build2 ? [n, r2, k] : [n, k];
                double building = (build1 ? Product(l, rank1!.Value, m) + (IntermediateCost * l * m) : 0)
                    + (build2 ? Product(k, rank2!.Value, n) + (IntermediateCost * k * n) : 0);
                foreach (bool[] steps in Interleavings(outer.Length - 1, inner.Length - 1))
                {
                    bool rankMajor = IsRankMajor(steps, outer, inner);
                    double cost = building + (tokens * PerToken(outer, inner, steps, rankMajor));
                    if (best is null || cost < best.Cost)
                    {
                        best = new(build1, build2, steps, rankMajor, cost);
                    }
                }
            }
        }

        return best!;
    }

    /// <summary>Every order of a number of outer and of inner steps, inner steps first.</summary>
    internal static IEnumerable<bool[]> Interleavings(int outer, int inner)
    {
        // At most three steps of a kind: every choice of positions.
        for (int mask = 0; mask < 1 << (outer + inner); mask++)
        {
            if (System.Numerics.BitOperations.PopCount((uint)mask) == outer)
            {
                yield return [.. Enumerable.Range(0, outer + inner).Select(position => (mask >> (outer + inner - 1 - position) & 1) == 1)];
            }
        }
    }

    private static bool[] Choices(long? rank) => rank is null ? [false] : [false, true];

    /// <summary>
    /// Whether to hold the rank first: then the outer steps are single products of m columns, not one product of few columns per token.
    /// Measured on CPUs: it wins for ranks up to 8 when w1 is not small, and loses otherwise, because the last step reads its input transposed.
    /// </summary>
    private static bool IsRankMajor(bool[] steps, long[] outer, long[] inner) =>
        steps.Length > 2 && inner.Length == 3 && !steps[0] && !steps[^1] && inner[1] <= 8 && Math.Min(outer[0], outer[^1]) >= NarrowestProduct;

    private static double Product(long a, long b, long c) =>
        (double)Math.Max(a, NarrowestProduct) * Math.Max(b, NarrowestProduct) * Math.Max(c, NarrowestProduct);

    private static double PerToken(long[] outer, long[] inner, bool[] steps, bool rankMajor)
    {
        int o = 0;
        int i = 0;
        double cost = 0;
        for (int step = 0; step < steps.Length; step++)
        {
            if (steps[step])
            {
                // One product for each token, unless the rank comes first: then one for all, whose columns are the rank of every token.
                cost += rankMajor
                    ? (double)Math.Max(outer[o], NarrowestProduct) * Math.Max(outer[o + 1], NarrowestProduct) * inner[i]
                    : Product(outer[o], outer[o + 1], inner[i]);
                o++;
            }
            else
            {
                cost += (double)Math.Max(inner[i], NarrowestProduct) * Math.Max(inner[i + 1], NarrowestProduct) * outer[o];
                i++;
            }

            if (step < steps.Length - 1)
            {
                cost += IntermediateCost * outer[o] * inner[i];
            }
        }

        return cost;
    }
}
