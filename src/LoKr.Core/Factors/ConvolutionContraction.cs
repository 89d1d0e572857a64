using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

/// <summary>
/// The convolution of an input with scale·(w1 ⊗ w2) without the product w1 ⊗ w2. The order of contractions is worked out once for each
/// size of the input.
/// </summary>
internal sealed class ConvolutionContraction(KroneckerFactors factors)
{
    private ContractionPlan? _plan;
    private long _planBatch;
    private long[] _planInput = [];
    private long[] _planOutput = [];

    /// <summary>Convolves an input, and adds the result to a sum if there is one.</summary>
    /// <param name="x">Input [batch, channels, positions…] in the type of the factors.</param>
    /// <param name="geometry">Geometry of the base layer, its groups included.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <param name="sum">Summand of the shape and type of the result, not modified; null for none.</param>
    /// <returns>A new tensor [batch, out, positions…].</returns>
    public Tensor Apply(Tensor x, ConvolutionGeometry geometry, double scale, Tensor? sum = null)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor input, ConvolutionGeometry rest) = geometry.Pad(x);
        if (!factors.IsReversed && factors.L % geometry.Groups == 0)
        {
            return Contract(input, rest, scale, null, sum).MoveToOuterDisposeScope();
        }

        Tensor result = GroupedConvolution.Apply(factors, input, rest, scale)
            .reshape([x.shape[0], factors.OutFeatures, .. geometry.OutputSize(x.shape.AsSpan(2))]);
        return (sum is null ? result : sum + result).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Contracts in the cheapest order. The last step accumulates into the sum, unless it is the one that moves over the input. With groups,
    /// the rows of a group are whole rows of w1 (the groups divide l): every group has its own rows of w1 and all groups share w2.
    /// </summary>
    /// <param name="x">Padded input.</param>
    /// <param name="geometry">Geometry without the padding that is done.</param>
    /// <param name="scale">Scale of w1 ⊗ w2.</param>
    /// <param name="given">An order; null for the cheapest.</param>
    /// <param name="sum">Summand, or null.</param>
    internal Tensor Contract(Tensor x, ConvolutionGeometry geometry, double scale, ContractionPlan? given, Tensor? sum = null)
    {
        long batch = x.shape[0] * geometry.Groups;
        long[] positions = x.shape[2..];
        long[] target = geometry.OutputSize(positions);
        ContractionPlan plan = given ?? Plan(batch, positions, target);
        Tensor[] outer = plan.BuildW1 ? [factors.W1()] : factors.OuterSteps();
        if (scale != 1)
        {
            outer[0] = outer[0] * scale;
        }

        // The last outer factor holds the output rows, which differ by group: one copy for each image and group.
        if (geometry.Groups > 1)
        {
            Tensor last = outer[^1];
            outer[^1] = last.view(1, geometry.Groups, last.shape[0] / geometry.Groups, last.shape[1])
                .expand(x.shape[0], geometry.Groups, last.shape[0] / geometry.Groups, last.shape[1])
                .reshape(batch, last.shape[0] / geometry.Groups, last.shape[1]);
        }

        List<(Tensor Factor, bool Moves)> inner = InnerSteps(plan.BuildW2);
        Tensor h = x;
        long rows = factors.M;
        long channels = factors.N;
        int o = 0;
        int i = 0;
        for (int step = 0; step < plan.Steps.Count; step++)
        {
            Tensor? into = step == plan.Steps.Count - 1 ? sum : null;
            if (plan.Steps[step])
            {
                Tensor factor = outer[o++];
                Tensor batched = factor.dim() == 3 ? factor : factor.expand(batch, factor.shape[0], factor.shape[1]);
                h = Multiply(batched, h.reshape(batch, rows, -1), into);
                rows = batched.shape[1];
            }
            else if (inner[i].Moves)
            {
                Tensor factor = inner[i++].Factor;
                h = geometry.Convolve(h.reshape([batch * rows, channels, .. positions]), factor, 1);
                (channels, positions) = (factor.shape[0], target);
                h = into is null ? h : into + h.reshape(into.shape);
            }
            else
            {
                Tensor factor = inner[i++].Factor;
                h = Multiply(factor.expand(batch * rows, factor.shape[0], factor.shape[1]), h.reshape(batch * rows, channels, -1), into);
                channels = factor.shape[0];
            }
        }

        return h.reshape([x.shape[0], factors.OutFeatures, .. target]);
    }

    /// <summary>A batched product, added to a sum whose numbers are in the same order.</summary>
    private static Tensor Multiply(Tensor factor, Tensor x, Tensor? sum) => sum is null
        ? factor.bmm(x)
        : factor.baddbmm(x, sum.reshape(x.shape[0], factor.shape[1], x.shape[2]), 1f, 1f);

    private ContractionPlan Plan(long batch, long[] input, long[] output)
    {
        if (_plan is null || _planBatch != batch || !_planInput.AsSpan().SequenceEqual(input) || !_planOutput.AsSpan().SequenceEqual(output))
        {
            _plan = ConvolutionPlan.Choose(factors, batch, input.Product(), output.Product());
            (_planBatch, _planInput, _planOutput) = (batch, input, output);
        }

        return _plan;
    }

    /// <summary>The steps of w2 in the order in which they are applied, and which of them moves over the input.</summary>
    private List<(Tensor Factor, bool Moves)> InnerSteps(bool build)
    {
        if (build || factors.FullW2 is not null)
        {
            return [(factors.W2(), true)];
        }

        (Tensor a, Tensor b) = (factors.W2A!, factors.W2B!);
        return factors.Core is Tensor core
            ? [(b, false), (core.reshape([core.shape[0], core.shape[1], .. factors.Kernel]), true), (a.t(), false)]
            : [(b.reshape([b.shape[0], factors.N, .. factors.Kernel]), true), (a, false)];
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
    public static ContractionPlan Choose(KroneckerFactors factors, long batch, long inputSize, long outputSize) => Choose(
        new FactorShapes(factors.L, factors.M, factors.K, factors.N, factors.Kernel, factors.W2B?.shape[0] ?? 0, factors.W1A is not null, factors.W2B is not null, factors.Core is not null)
        {
            OuterRank = factors.W1A?.shape[1],
        },
        batch,
        inputSize,
        outputSize);

    /// <inheritdoc cref="Choose(KroneckerFactors, long, long, long)"/>
    /// <param name="shapes">Shapes of the factors.</param>
    /// <param name="batch">Images times groups.</param>
    /// <param name="inputSize">Positions of the input.</param>
    /// <param name="outputSize">Positions of the output.</param>
    public static ContractionPlan Choose(FactorShapes shapes, long batch, long inputSize, long outputSize)
    {
        (double l, double m, double k, double n) = (shapes.L, shapes.M, shapes.K, shapes.N);
        (long? rank1, long? rank2) = (shapes.LowRankW1 ? shapes.OuterRank ?? shapes.Rank : null, shapes.LowRankW2 ? shapes.Rank : null);
        bool tucker = shapes.Tucker;
        long kernelSize = shapes.Kernel.Product();
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
