namespace LoKr.Core.Adapters;

/// <summary>
/// The cheapest order of the factors of a convolution: outer steps mix the m blocks of channels into l, inner ones turn the n channels
/// of each block into k; one of the inner steps moves over the input. Outer and inner steps commute.
/// </summary>
internal static class ConvolutionPlan
{
    /// <summary>Chooses the order by counting multiply-adds and passes over memory, as <see cref="ContractionPlan.Cost"/> does.</summary>
    /// <param name="batch">Images times groups.</param>
    /// <param name="inputSize">Positions of the input.</param>
    /// <param name="outputSize">Positions of the output.</param>
    /// <param name="kernelSize">Numbers in a kernel.</param>
    /// <param name="factors">The factors.</param>
    /// <param name="rank1">Inner size of a low-rank w1; null when it is full.</param>
    /// <param name="rank2">Inner size of a low-rank w2; null when it is full.</param>
    /// <param name="tucker">Whether the low-rank w2 has a core.</param>
    public static ContractionPlan Choose(long batch, long inputSize, long outputSize, long kernelSize, KroneckerFactors factors, long? rank1, long? rank2, bool tucker)
    {
        (double l, double m, double k, double n) = (factors.L, factors.M, factors.K, factors.N);
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
