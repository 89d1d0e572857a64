using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Factors;

public sealed partial class KroneckerFactors
{
    private readonly Dictionary<long, ContractionPlan> _plans = [];

    /// <summary>scale·x·(w1 ⊗ w2)ᵀ without building the product.</summary>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <returns>[..., out].</returns>
    public Tensor Apply(Tensor x, double scale) => Contract(x, null, scale, Plan(x.numel() / InFeatures));

    /// <summary>y + scale·x·(w1 ⊗ w2)ᵀ; the last contraction accumulates into the sum.</summary>
    /// <param name="y">What to add to [..., out], in the type of the factors; left as it is.</param>
    /// <param name="x">Input [..., in] in the type of the factors.</param>
    /// <param name="scale">What w1 ⊗ w2 is multiplied with.</param>
    /// <returns>A new tensor [..., out].</returns>
    public Tensor AddTo(Tensor y, Tensor x, double scale) => Contract(x, y, scale, Plan(x.numel() / InFeatures));

    /// <summary>The same by a given order, so that tests reach every one of them.</summary>
    internal Tensor Contract(Tensor x, Tensor? y, double scale, ContractionPlan plan)
    {
        if (Kernel.Count > 0)
        {
            throw new InvalidOperationException("Factors of a convolution were applied as those of a linear layer.");
        }

        using DisposeScope scope = NewDisposeScope();
        long tokens = x.numel() / InFeatures;
        Tensor[] outer = plan.BuildW1 ? [W1()] : OuterParts();
        Tensor[] inner = _w2 is not null ? [_w2] : plan.BuildW2 ? [W2()] : [Get(FactorNames.W2B), Get(FactorNames.W2A)];
        FoldScale(outer, inner, scale);
        Tensor? sum = y?.reshape(tokens * L, K);
        Tensor result = plan.RankMajor
            ? RankMajor(x, sum, outer, inner, tokens)
            : TokenMajor(x, sum, outer, inner, plan.Steps, tokens);
        return WithLastDimension(result, x, OutFeatures).MoveToOuterDisposeScope();
    }

    /// <summary>The order for a number of tokens.</summary>
    internal ContractionPlan Plan(long tokens)
    {
        if (!_plans.TryGetValue(tokens, out ContractionPlan? plan))
        {
            if (_plans.Count >= 256)
            {
                _plans.Clear();
            }

            plan = ContractionPlan.Choose(tokens, L, M, K, N, Find(FactorNames.W1A)?.shape[1], Find(FactorNames.W2A)?.shape[1]);
            _plans.Add(tokens, plan);
        }

        return plan;
    }

    /// <summary>The rows of a product in the leading dimensions of an input.</summary>
    private static Tensor WithLastDimension(Tensor rows, Tensor x, long size)
    {
        if (x.dim() == 2)
        {
            return rows.view(x.size(0), size);
        }

        long[] shape = x.shape;
        shape[^1] = size;
        return rows.view(shape);
    }

    /// <summary>w1, or w1_b and w1_a in the order in which they are applied; a trained scalar is multiplied in.</summary>
    private Tensor[] OuterParts()
    {
        Tensor[] parts = _w1 is not null ? [_w1] : [Get(FactorNames.W1B), Get(FactorNames.W1A)];
        if (Find(FactorNames.Scalar) is Tensor scalar)
        {
            parts[0] = parts[0] * scalar;
        }

        return parts;
    }

    /// <summary>The scale goes into the smallest matrix: fewer multiplications, and one pass less over the output.</summary>
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
        Tensor h = inner[0].mm(x.reshape(tokens * M, N).t());
        long rows = M;
        foreach (Tensor factor in outer)
        {
            h = h.view(rank * tokens, rows).mm(factor.t());
            rows = factor.shape[0];
        }

        return Multiply(h.view(rank, tokens * L).t(), inner[1], sum);
    }

    private Tensor TokenMajor(Tensor x, Tensor? sum, Tensor[] outer, Tensor[] inner, IReadOnlyList<bool> steps, long tokens)
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
                long height = factor.shape[0];

                // A stride of zero costs no memory, and the batched product takes it as it is.
                Tensor batch = factor.expand(tokens, height, rows);
                h = h.reshape(tokens, rows, columns);
                h = target is null ? batch.bmm(h) : batch.baddbmm(h, target.view(tokens, L, K), 1f, 1f);
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
