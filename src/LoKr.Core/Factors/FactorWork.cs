using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Factors;

/// <summary>
/// Counts the multiply-adds of one layer's contribution, in the order of contractions that the layer chooses for a number of tokens.
/// Passes over memory, which <see cref="ContractionPlan.Cost"/> weighs too, are not counted.
/// </summary>
internal static class FactorWork
{
    /// <summary>Multiply-adds of x ↦ x·(w1 ⊗ w2)ᵀ for all tokens together, or of the convolution for all positions with stride 1.</summary>
    /// <param name="shapes">Shapes of the factors.</param>
    /// <param name="tokens">Tokens, or positions of the output.</param>
    public static double Forward(FactorShapes shapes, long tokens)
    {
        long kernel = shapes.Kernel.Product();
        (long? rank1, long? rank2) = Ranks(shapes);
        ContractionPlan plan = shapes.Kernel.Count == 0
            ? ContractionPlan.Choose(tokens, shapes.L, shapes.M, shapes.K, shapes.N, rank1, rank2)
            : ConvolutionPlan.Choose(shapes, 1, tokens, tokens);
        double[] outer = rank1 is long r1 && !plan.BuildW1 ? [shapes.M, r1, shapes.L] : [shapes.M, shapes.L];
        (double[] inner, int moving) = rank2 is not long r2 || plan.BuildW2 ? (new double[] { shapes.N, shapes.K }, 0)
            : shapes.Tucker ? (new double[] { shapes.N, r2, r2, shapes.K }, 1)
            : (new double[] { shapes.N, r2, shapes.K }, 0);
        double count = 0;
        int o = 0;
        int i = 0;
        foreach (bool isOuter in plan.Steps)
        {
            if (isOuter)
            {
                count += outer[o] * outer[o + 1] * inner[i];
                o++;
            }
            else
            {
                count += inner[i] * inner[i + 1] * outer[o] * (i == moving ? kernel : 1);
                i++;
            }
        }

        return (count * tokens) + (plan.BuildW1 ? Build1(shapes) : 0) + (plan.BuildW2 ? Build2(shapes) : 0);
    }

    /// <summary>Multiply-adds of one row of w1 ⊗ w2, the contribution of an embedding to a token.</summary>
    /// <param name="shapes">Shapes of the factors.</param>
    public static double Row(FactorShapes shapes)
    {
        (long? rank1, long? rank2) = Ranks(shapes);
        return ((rank1 ?? 0) * shapes.M) + ((rank2 ?? 0) * shapes.N) + (shapes.M * shapes.N);
    }

    /// <summary>Multiply-adds that DoRA adds for all tokens together: the norms of W + Δ, and with norms of columns a product with W.</summary>
    /// <param name="shapes">Shapes of the factors.</param>
    /// <param name="axis">Axis of the norms.</param>
    /// <param name="tokens">Tokens, or positions of the output.</param>
    public static double Dora(FactorShapes shapes, WeightDecomposeAxis axis, long tokens)
    {
        double weight = (double)shapes.L * shapes.K * shapes.M * shapes.N * shapes.Kernel.Product();
        return (2 * weight) + (axis == WeightDecomposeAxis.Input ? weight * tokens : 0);
    }

    private static (long? Outer, long? Inner) Ranks(FactorShapes shapes) =>
        (shapes.LowRankW1 ? shapes.OuterRank ?? shapes.Rank : null, shapes.LowRankW2 ? shapes.Rank : null);

    private static double Build1(FactorShapes shapes) => (double)shapes.L * (shapes.OuterRank ?? shapes.Rank) * shapes.M;

    private static double Build2(FactorShapes shapes)
    {
        (double k, double n, double rank, double kernel) = (shapes.K, shapes.N, shapes.Rank, shapes.Kernel.Product());
        return shapes.Tucker ? kernel * rank * ((rank * n) + (k * n)) : k * rank * n * kernel;
    }
}
