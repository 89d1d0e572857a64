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
