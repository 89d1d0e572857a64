using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

public sealed partial class KroneckerFactors
{
    private ContractionPlan? _plan;
    private long _planTokens = -1;

    /// <summary>scale·x·(w1 ⊗ w2)ᵀ without building the product.</summary>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <returns>[..., out].</returns>
    public Tensor Apply(Tensor x, double scale) => Contract(x, null, scale, Plan(x));

    /// <summary>y + scale·x·(w1 ⊗ w2)ᵀ; the last contraction accumulates into the sum.</summary>
    /// <param name="y">What to add to [..., out], in the type of the factors; left as it is.</param>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <returns>A new tensor [..., out].</returns>
    public Tensor AddTo(Tensor y, Tensor x, double scale) => Contract(x, y, scale, Plan(x));

    /// <summary>The same by a given order, so that tests reach every one of them.</summary>
    internal Tensor Contract(Tensor x, Tensor? y, double scale, ContractionPlan plan)
    {
        if (Kernel.Count > 0)
        {
            throw new InvalidOperationException("Factors of a convolution were applied as those of a linear layer.");
        }

        using DisposeScope scope = NewDisposeScope();
        long tokens = x.numel() / InFeatures;
        List<Tensor> outer = plan.BuildW1 ? [W1()] : OuterParts();
        List<Tensor> inner = Find(FactorNames.W2) is Tensor w2 ? [w2] : plan.BuildW2 ? [W2()] : [Get(FactorNames.W2B), Get(FactorNames.W2A)];
        FoldScale(outer, inner, scale);
        Tensor? sum = y?.reshape(tokens * L, K);
        Tensor result = IsRankMajor(outer, inner, plan)
            ? RankMajor(x, sum, outer[0], inner, tokens)
            : TokenMajor(x, sum, outer, inner, plan.Steps, tokens);
        return result.view([.. x.shape.AsSpan(0, (int)x.dim() - 1), OutFeatures]).MoveToOuterDisposeScope();
    }

    /// <summary>The order for an input of that size, kept until the size changes.</summary>
    internal ContractionPlan Plan(Tensor x)
    {
        long tokens = x.numel() / InFeatures;
        if (_plan is null || _planTokens != tokens)
        {
            _plan = ContractionPlan.Choose(tokens, L, M, K, N, Find(FactorNames.W1A)?.shape[1], Find(FactorNames.W2A)?.shape[1]);
            _planTokens = tokens;
        }

        return _plan;
    }

    /// <summary>w1, or w1_b and w1_a in the order in which they are applied; a trained scalar is multiplied in.</summary>
    private List<Tensor> OuterParts()
    {
        List<Tensor> parts = Find(FactorNames.W1) is Tensor w1 ? [w1] : [Get(FactorNames.W1B), Get(FactorNames.W1A)];
        if (Find(FactorNames.Scalar) is Tensor scalar)
        {
            parts[0] = parts[0] * scalar;
        }

        return parts;
    }

    /// <summary>The scale goes into the smallest matrix: fewer multiplications, and one pass less over the output.</summary>
    private static void FoldScale(List<Tensor> outer, List<Tensor> inner, double scale)
    {
        if (scale == 1)
        {
            return;
        }

        List<Tensor> smallest = outer.Min(static tensor => tensor.numel()) <= inner.Min(static tensor => tensor.numel()) ? outer : inner;
        int index = smallest.Count == 2 && smallest[1].numel() < smallest[0].numel() ? 1 : 0;
        smallest[index] = smallest[index] * scale;
    }

    /// <summary>Few columns make batched products slow on the CPU; keeping the rank in front turns every stage into one large product.</summary>
    private bool IsRankMajor(List<Tensor> outer, List<Tensor> inner, ContractionPlan plan) =>
        plan.Steps is [false, true, false] && outer.Count == 1 && inner[0].shape[0] <= 8 && Math.Min(L, M) >= 16;

    private Tensor RankMajor(Tensor x, Tensor? sum, Tensor w1, List<Tensor> inner, long tokens)
    {
        long rank = inner[0].shape[0];
        Tensor p = inner[0].mm(x.reshape(tokens * M, N).t());
        Tensor q = p.view(rank * tokens, M).mm(w1.t());
        return Multiply(q.view(rank, tokens * L).t(), inner[1], sum);
    }

    private Tensor TokenMajor(Tensor x, Tensor? sum, List<Tensor> outer, List<Tensor> inner, IReadOnlyList<bool> steps, long tokens)
    {
        Tensor h = x;
        long rows = M;
        long columns = N;
        int o = 0;
        int i = 0;
        for (int step = 0; step < steps.Count; step++)
        {
            Tensor? target = step == steps.Count - 1 ? sum : null;
            if (steps[step])
            {
                Tensor factor = outer[o++];

                // A stride of zero costs no memory, and the batched product takes it as it is.
                Tensor batch = factor.expand(tokens, factor.shape[0], factor.shape[1]);
                h = h.reshape(tokens, rows, columns);
                h = target is null ? batch.bmm(h) : batch.baddbmm(h, target.view(tokens, L, K), 1f, 1f);
                rows = factor.shape[0];
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
        // A tall factor (w2_a) is copied into wide form: autograd then forms its gradient as wide·tall, which is several times faster.
        Tensor transposed = factor.shape[0] > factor.shape[1] ? factor.t().contiguous() : factor.t();
        return sum is null ? x.mm(transposed) : sum.addmm(x, transposed, 1f, 1f);
    }
}
