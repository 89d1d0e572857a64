namespace LoKr.Core.Adapters;

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
    /// <summary>Inner size of a low-rank w1 where it is not <see cref="Rank"/>, as in files made by hand; null otherwise.</summary>
    public long? OuterRank { get; init; }

    /// <summary>Whether neither w1 nor w2 is a low-rank product.</summary>
    public bool BothFull => !LowRankW1 && !LowRankW2;

    /// <summary>Number of parameters.</summary>
    public long ParameterCount => Tensors().Sum(static tensor => tensor.Shape.Product());

    /// <summary>Works out the shapes for one layer.</summary>
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

        bool lowRankW1 = !config.FullMatrix && config.DecomposeBoth && rank < Math.Max(l, m) / 2.0;
        bool lowRankW2 = !config.FullMatrix && rank < Math.Max(k, n) / 2.0;
        bool tucker = lowRankW2 && config.UseEffectiveConv2d && kernel.Any(static size => size != 1);
        bool reversed = kernel.Count == 1 && !lowRankW2 && config.Conv1dLayout == Conv1dLayout.Peft;
        return new(l, m, k, n, kernel, rank, lowRankW1, lowRankW2, tucker, reversed);
    }

    /// <summary>Suffixes and shapes of the tensors, in the order in which PEFT creates and initialises them.</summary>
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

            // PEFT gives the core of a one-dimensional convolution a second kernel dimension of 1.
            tensors.Add((FactorNames.T2, Kernel.Count == 1 ? [Rank, Rank, Kernel[0], 1] : [Rank, Rank, .. Kernel]));
        }
        else
        {
            tensors.Add((FactorNames.W2A, [K, Rank]));
            tensors.Add((FactorNames.W2B, [Rank, Kernel.Aggregate(N, static (product, size) => product * size)]));
        }

        return tensors;
    }

    /// <inheritdoc/>
    public override string ToString() => string.Join(", ", Tensors().Select(static tensor =>
        $"{tensor.Suffix["lokr_".Length..]} {string.Join('×', tensor.Shape)}"));
}
