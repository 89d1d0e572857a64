using LoKr.Core.Safetensors;

namespace LoKr.Core.Factors;

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

/// <summary>
/// The cheapest order of the factors of a convolution: outer steps mix the m blocks of channels into l, inner ones turn the n channels
/// of each block into k; one of the inner steps moves over the input. Outer and inner steps commute.
/// </summary>
internal static class ConvolutionPlan
{
    /// <summary>Chooses the order by counting multiply-adds and passes over memory, as <see cref="ContractionPlan.Cost"/> does.</summary>
    /// <param name="factors">The factors.</param>
    /// <param name="batch">Images times groups.</param>
    /// <param name="inputSize">Positions of the input.</param>
    /// <param name="outputSize">Positions of the output.</param>
    public static ContractionPlan Choose(KroneckerFactors factors, long batch, long inputSize, long outputSize)
    {
        (double l, double m, double k, double n) = (factors.L, factors.M, factors.K, factors.N);
        (long? rank1, long? rank2) = (factors.W1A?.shape[1], factors.W2B?.shape[0]);
        bool tucker = factors.Core is not null;
        long kernelSize = factors.Kernel.Product();
        ContractionPlan? best = null;
        foreach (bool build1 in rank1 is null ? [false] : (bool[])[false, true])
        {
            double[] outer = rank1 is long r1 && !build1 ? [m, r1, l] : [m, l];
            foreach (bool build2 in rank2 is null ? [false] : (bool[])[false, true])
            {
                // Channels after each inner step, and which of the steps is the moving one.
                (double[] inner, int moving) = rank2 is not long r2 || build2 ? (new[] { n, k }, 0)
                    : tucker ? (new[] { n, r2, r2, k }, 1)
                    : (new[] { n, r2, k }, 0);
                double building = (build1 ? l * rank1!.Value * m : 0)
                    + (build2 ? tucker ? kernelSize * rank2!.Value * ((rank2.Value * n) + (k * n)) : k * rank2!.Value * n * kernelSize : 0);
                foreach (bool[] steps in ContractionPlan.Interleavings(outer.Length - 1, inner.Length - 1))
                {
                    double cost = 0;
                    int o = 0;
                    int i = 0;
                    foreach ((int step, bool isOuter) in steps.Index())
                    {
                        double positions = i > moving ? outputSize : inputSize;
                        if (isOuter)
                        {
                            cost += outer[o] * outer[o + 1] * inner[i] * positions;
                            o++;
                        }
                        else
                        {
                            cost += inner[i] * inner[i + 1] * outer[o] * (i == moving ? outputSize * kernelSize : positions);
                            i++;
                        }

                        if (step < steps.Length - 1)
                        {
                            cost += ContractionPlan.IntermediateCost * outer[o] * inner[i] * (i > moving ? outputSize : inputSize);
                        }
                    }

                    cost = building + (cost * batch);
                    if (best is null || cost < best.Cost)
                    {
                        best = new(build1, build2, steps, false, cost);
                    }
                }
            }
        }

        return best!;
    }
}
