namespace LoKr.Core.Adapters;

/// <summary>
/// The cheapest order in which the factors are applied to an input of T tokens, each an m×n matrix that becomes l×k.
/// Outer steps (w1 or its two parts) change m to l, inner steps (w2 or its two parts) change n to k; they commute.
/// </summary>
/// <param name="BuildW1">Multiply a low-rank w1 out first.</param>
/// <param name="BuildW2">Multiply a low-rank w2 out first.</param>
/// <param name="Steps">The steps; true for an outer one.</param>
/// <param name="Cost">Multiply-adds in all.</param>
internal sealed record ContractionPlan(bool BuildW1, bool BuildW2, IReadOnlyList<bool> Steps, double Cost)
{
    /// <summary>Chooses the order by counting multiply-adds.</summary>
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
                double building = (build1 ? (double)l * rank1!.Value * m : 0) + (build2 ? (double)k * rank2!.Value * n : 0);
                foreach (bool[] steps in Interleavings(outer.Length - 1, inner.Length - 1))
                {
                    double cost = building + ((double)tokens * PerToken(outer, inner, steps));
                    if (best is null || cost < best.Cost)
                    {
                        best = new(build1, build2, steps, cost);
                    }
                }
            }
        }

        return best!;
    }

    private static bool[] Choices(long? rank) => rank is null ? [false] : [false, true];

    private static double PerToken(long[] outer, long[] inner, bool[] steps)
    {
        int o = 0;
        int i = 0;
        double cost = 0;
        foreach (bool isOuter in steps)
        {
            if (isOuter)
            {
                cost += (double)outer[o] * outer[o + 1] * inner[i];
                o++;
            }
            else
            {
                cost += (double)inner[i] * inner[i + 1] * outer[o];
                i++;
            }
        }

        return cost;
    }

    internal static IEnumerable<bool[]> Interleavings(int outer, int inner)
    {
        // At most three steps of a kind: every choice of positions, inner steps first.
        for (int mask = 0; mask < 1 << (outer + inner); mask++)
        {
            if (System.Numerics.BitOperations.PopCount((uint)mask) == outer)
            {
                yield return [.. Enumerable.Range(0, outer + inner).Select(position => (mask >> (outer + inner - 1 - position) & 1) == 1)];
            }
        }
    }
}
