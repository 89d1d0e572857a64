namespace LoKr.Core.Adapters;

/// <summary>The number that w1 ⊗ w2 is multiplied with, by convention.</summary>
public static class LoKrScaling
{
    /// <summary>Computes it.</summary>
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
