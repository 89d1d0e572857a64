using LoKr.Core.Safetensors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

public sealed partial class KroneckerFactors
{
    private ContractionPlan? _convolutionPlan;
    private string _convolutionPlanKey = "";

    /// <summary>The convolution of an input with scale·(w1 ⊗ w2), without building the product.</summary>
    /// <param name="x">Input [batch, channels, positions…] in the type of the factors.</param>
    /// <param name="geometry">How the base layer moves; its groups count too.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <param name="sum">What to add it to, of the shape and type of the result; left as it is. Null for nothing.</param>
    internal Tensor Convolve(Tensor x, ConvolutionGeometry geometry, double scale, Tensor? sum = null)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor input, ConvolutionGeometry rest) = geometry.Pad(x);
        if (!IsReversed && L % geometry.Groups == 0)
        {
            return Chain(input, rest, scale, null, sum).MoveToOuterDisposeScope();
        }

        Tensor result = (IsReversed ? GroupedReversed(input, rest, scale) : Grouped(input, rest, scale))
            .reshape([x.shape[0], OutFeatures, .. geometry.OutputSize(x.shape.AsSpan(2))]);
        return (sum is null ? result : sum + result).MoveToOuterDisposeScope();
    }

    /// <summary>
    /// Steps in the cheapest order; the last one accumulates into the sum unless it is the one that moves over the input. With groups, a
    /// group's rows are whole rows of w1 (l divides by the groups): every group has its own rows of w1 and all share w2.
    /// </summary>
    /// <param name="x">Padded input.</param>
    /// <param name="geometry">What is left to do.</param>
    /// <param name="scale">Scale.</param>
    /// <param name="given">An order, so that tests reach every one of them; null for the cheapest.</param>
    /// <param name="sum">What to add to, or null.</param>
    internal Tensor Chain(Tensor x, ConvolutionGeometry geometry, double scale, ContractionPlan? given, Tensor? sum = null)
    {
        long batch = x.shape[0] * geometry.Groups;
        long[] positions = x.shape[2..];
        long[] target = geometry.OutputSize(positions);
        ContractionPlan plan = given ?? PlanFor(batch, positions, target);
        Tensor[] outer = plan.BuildW1 ? [W1()] : OuterParts();
        if (scale != 1)
        {
            outer[0] = outer[0] * scale;
        }

        // The last outer factor holds the output rows: it differs by group. Batched in front of everything by group.
        if (geometry.Groups > 1)
        {
            Tensor last = outer[^1];
            outer[^1] = last.view(1, geometry.Groups, last.shape[0] / geometry.Groups, last.shape[1])
                .expand(x.shape[0], geometry.Groups, last.shape[0] / geometry.Groups, last.shape[1])
                .reshape(batch, last.shape[0] / geometry.Groups, last.shape[1]);
        }

        List<(Tensor Factor, bool Moves)> inner = InnerParts(plan.BuildW2);
        Tensor h = x;
        long rows = M;
        long channels = N;
        int o = 0;
        int i = 0;
        for (int step = 0; step < plan.Steps.Count; step++)
        {
            Tensor? into = step == plan.Steps.Count - 1 ? sum : null;
            if (plan.Steps[step])
            {
                Tensor factor = outer[o++];
                Tensor batched = factor.dim() == 3 ? factor : factor.expand(batch, factor.shape[0], factor.shape[1]);
                h = Accumulate(batched, h.reshape(batch, rows, -1), into);
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
                h = Accumulate(factor.expand(batch * rows, factor.shape[0], factor.shape[1]), h.reshape(batch * rows, channels, -1), into);
                channels = factor.shape[0];
            }
        }

        return h.reshape([x.shape[0], OutFeatures, .. target]);
    }

    /// <summary>A batched product, added to a sum whose numbers are in the same order.</summary>
    private static Tensor Accumulate(Tensor factors, Tensor x, Tensor? sum) => sum is null
        ? factors.bmm(x)
        : factors.baddbmm(x, sum.reshape(x.shape[0], factors.shape[1], x.shape[2]), 1f, 1f);

    private ContractionPlan PlanFor(long batch, long[] positions, long[] target)
    {
        string key = $"{batch} {string.Join(' ', positions)} {string.Join(' ', target)}";
        if (_convolutionPlan is null || _convolutionPlanKey != key)
        {
            _convolutionPlan = ConvolutionPlan.Choose(
                batch, positions.Product(), target.Product(), Kernel.Product(), this,
                Find(FactorNames.W1A)?.shape[1], Find(FactorNames.W2B)?.shape[0], Find(FactorNames.T2) is not null);
            _convolutionPlanKey = key;
        }

        return _convolutionPlan;
    }

    /// <summary>w2 as steps in the order in which they are applied, and which of them moves over the input.</summary>
    private List<(Tensor Factor, bool Moves)> InnerParts(bool build)
    {
        if (build || Find(FactorNames.W2) is not null)
        {
            return [(W2(), true)];
        }

        Tensor a = Get(FactorNames.W2A);
        Tensor b = Get(FactorNames.W2B);
        return Find(FactorNames.T2) is Tensor core
            ? [(b, false), (core.reshape([core.shape[0], core.shape[1], .. Kernel]), true), (a.t(), false)]
            : [(b.reshape([b.shape[0], N, .. Kernel]), true), (a, false)];
    }
}
