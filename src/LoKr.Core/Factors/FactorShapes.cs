using LoKr.Core.Configuration;
using LoKr.Core.Safetensors;

namespace LoKr.Core.Factors;

/// <summary>
/// Shapes of the factors of one layer: out = l·k, in = m·n; w1 is l×m and w2 is k×n×kernel.
/// Either is stored full or as a low-rank product, by PEFT's rules.
/// </summary>
/// <param name="L">Rows of w1.</param>
/// <param name="M">Columns of w1.</param>
/// <param name="K">Rows of w2.</param>
/// <param name="N">Columns of w2.</param>
/// <param name="Kernel">Kernel size of a convolution; empty for a linear layer.</param>
/// <param name="Rank">Rank of the low-rank products.</param>
/// <param name="LowRankW1">Whether w1 is w1_a·w1_b.</param>
/// <param name="LowRankW2">Whether w2 is w2_a·w2_b.</param>
/// <param name="Tucker">Whether a low-rank w2 has a core t2.</param>
/// <param name="Reversed">Whether the delta is w2 ⊗ w1, as PEFT's is for a one-dimensional convolution with a full w2.</param>
public sealed record FactorShapes(long L, long M, long K, long N, IReadOnlyList<long> Kernel, long Rank, bool LowRankW1, bool LowRankW2, bool Tucker, bool Reversed = false)
{
    /// <summary>Inner size of a low-rank w1 that differs from <see cref="Rank"/>, as in hand-made files; null otherwise.</summary>
    public long? OuterRank { get; init; }

    /// <summary>Whether neither w1 nor w2 is a low-rank product.</summary>
    public bool BothFull => !LowRankW1 && !LowRankW2;

    /// <summary>Number of parameters.</summary>
    public long ParameterCount => Tensors().Sum(static tensor => tensor.Shape.Product());

    /// <summary>Computes the shapes for one layer.</summary>
    /// <param name="outFeatures">Output size of the layer.</param>
    /// <param name="inFeatures">Input size of the layer (input channels per group, for a convolution).</param>
    /// <param name="kernel">Kernel size; empty for a linear layer.</param>
    /// <param name="rank">Rank for this layer.</param>
    /// <param name="config">Decomposition options.</param>
    public static FactorShapes Create(long outFeatures, long inFeatures, IReadOnlyList<long> kernel, int rank, LoKrConfig config)
    {
        (long m, long n) = Factorization.Split(inFeatures, config.DecomposeFactor, config.Factorization);
        (long l, long k) = Factorization.Split(outFeatures, config.DecomposeFactor, config.Factorization);
        if (config.UnbalancedFactorization)
        {
            (l, k) = (k, l);
        }

        return Of((l, m, k, n), kernel, rank, config);
    }

    /// <summary>Computes what is low-rank for given sizes.</summary>
    /// <param name="sizes">Rows and columns of w1 and of w2.</param>
    /// <param name="kernel">Kernel size; empty for a linear layer.</param>
    /// <param name="rank">Rank for this layer.</param>
    /// <param name="config">Decomposition options, of which the factor does not matter here.</param>
    internal static FactorShapes Of((long L, long M, long K, long N) sizes, IReadOnlyList<long> kernel, int rank, LoKrConfig config)
    {
        (long l, long m, long k, long n) = sizes;
        bool lowRankW1 = !config.FullMatrix && config.DecomposeBoth && rank < Math.Max(l, m) / 2.0;
        bool lowRankW2 = !config.FullMatrix && rank < Math.Max(k, n) / 2.0;
        bool tucker = lowRankW2 && config.UseEffectiveConv2d && kernel.Any(static size => size != 1);
        bool reversed = kernel.Count == 1 && !lowRankW2 && config.Conv1dLayout == Conv1dLayout.Peft;
        return new(l, m, k, n, kernel, rank, lowRankW1, lowRankW2, tucker, reversed);
    }

    /// <summary>Returns suffixes and shapes of the tensors, in the order in which PEFT creates and initializes them.</summary>
    public IReadOnlyList<(string Suffix, long[] Shape)> Tensors()
    {
        List<(string, long[])> tensors = [];
        if (LowRankW1)
        {
            tensors.Add((FactorNames.W1A, [L, OuterRank ?? Rank]));
            tensors.Add((FactorNames.W1B, [OuterRank ?? Rank, M]));
        }
        else
        {
            tensors.Add((FactorNames.W1, [L, M]));
        }

        if (!LowRankW2)
        {
            tensors.Add((FactorNames.W2, [K, N, .. Kernel]));
        }
        else if (Tucker)
        {
            tensors.Add((FactorNames.W2A, [Rank, K]));
            tensors.Add((FactorNames.W2B, [Rank, N]));

            // In PEFT the core of a one-dimensional convolution has a second kernel dimension of 1.
            tensors.Add((FactorNames.T2, Kernel.Count == 1 ? [Rank, Rank, Kernel[0], 1] : [Rank, Rank, .. Kernel]));
        }
        else
        {
            tensors.Add((FactorNames.W2A, [K, Rank]));
            tensors.Add((FactorNames.W2B, [Rank, N * Kernel.Product()]));
        }

        return tensors;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Join(", ", Tensors().Select(static tensor =>
        $"{tensor.Suffix["lokr_".Length..]} {string.Join('×', tensor.Shape)}"));
}

/// <summary>Splits a dimension into two factors, as PEFT and LyCORIS do.</summary>
public static class Factorization
{
    /// <summary>Splits a dimension.</summary>
    /// <param name="dimension">Positive size to split.</param>
    /// <param name="factor">Preferred first factor; -1 for the most square split. PEFT takes 0 and less than -1 as "no split".</param>
    /// <param name="convention">Whether a factor that divides the dimension comes first (PEFT) or the smaller one does (LyCORIS).</param>
    /// <returns>Two numbers whose product is the dimension. The first belongs to w1, the second to w2.</returns>
    /// <remarks>
    /// A factor that does not divide the dimension is an upper limit: the result is the largest divisor that
    /// is at most the factor and at most the square root.
    /// </remarks>
    public static (long First, long Second) Split(long dimension, long factor, FactorizationConvention convention = FactorizationConvention.Peft)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(dimension);
        if (factor > 0 && dimension % factor == 0)
        {
            long other = dimension / factor;
            return convention == FactorizationConvention.Lycoris && factor > other ? (other, factor) : (factor, other);
        }

        bool unlimited = convention == FactorizationConvention.Lycoris ? factor < 0 : factor == -1;
        long limit = unlimited ? dimension : factor;
        long first = 1;
        for (long candidate = 2; candidate <= limit && candidate * candidate <= dimension; candidate++)
        {
            if (dimension % candidate == 0)
            {
                first = candidate;
            }
        }

        return (first, dimension / first);
    }
}

/// <summary>Lists the tensors of one adapted layer in a file.</summary>
internal static class LayerTensors
{
    /// <summary>Returns suffixes and shapes.</summary>
    /// <param name="shapes">Shapes of the factors.</param>
    /// <param name="config">The configuration.</param>
    /// <param name="outFeatures">Output size of the layer.</param>
    /// <param name="inFeatures">Input size of the layer.</param>
    public static IEnumerable<(string Suffix, long[] Shape)> List(FactorShapes shapes, LoKrConfig config, long outFeatures, long inFeatures)
    {
        foreach ((string Suffix, long[] Shape) tensor in shapes.Tensors())
        {
            // In PEFT the core of a one-dimensional convolution has a second kernel dimension of 1; not in LyCORIS.
            yield return tensor.Suffix == FactorNames.T2 && shapes.Kernel.Count == 1 && config.Conv1dLayout == Conv1dLayout.Kronecker
                ? (tensor.Suffix, tensor.Shape[..3])
                : tensor;
        }

        if (config.UseScalar)
        {
            yield return (FactorNames.Scalar, []);
        }

        if (config.WeightDecompose)
        {
            yield return (FactorNames.DoraScale, Dora.MagnitudeShape(outFeatures, inFeatures, shapes.Kernel, config.WeightDecomposeAxis));
        }
    }
}

/// <summary>Computes the scale of w1 ⊗ w2 by convention.</summary>
public static class LoKrScaling
{
    /// <summary>Computes the scale of one layer.</summary>
    /// <param name="config">Convention, and whether the rank counts by its square root (rsLoRA, arXiv:2312.03732).</param>
    /// <param name="rank">Rank of the layer.</param>
    /// <param name="alpha">Alpha of the layer.</param>
    /// <param name="bothFull">Whether neither w1 nor w2 is a low-rank product.</param>
    public static double Compute(LoKrConfig config, int rank, double alpha, bool bothFull) => config.Scaling switch
    {
        ScalingConvention.None => 1,

        // With rsLoRA too: LyCORIS trains such a layer with sqrt(r), but every reader of its file, LyCORIS too, applies 1.
        ScalingConvention.Lycoris when bothFull => 1,
        _ => alpha / (config.RsLora ? Math.Sqrt(rank) : rank),
    };
}
