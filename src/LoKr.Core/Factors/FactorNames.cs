namespace LoKr.Core.Factors;

/// <summary>Names of the factors in files of PEFT and LyCORIS.</summary>
public static class FactorNames
{
    /// <summary>w1, l×m.</summary>
    public const string W1 = "lokr_w1";

    /// <summary>Left part of a low-rank w1, l×r.</summary>
    public const string W1A = "lokr_w1_a";

    /// <summary>Right part of a low-rank w1, r×m.</summary>
    public const string W1B = "lokr_w1_b";

    /// <summary>w2, k×n×kernel.</summary>
    public const string W2 = "lokr_w2";

    /// <summary>Left part of a low-rank w2, k×r (r×k with a Tucker core).</summary>
    public const string W2A = "lokr_w2_a";

    /// <summary>Right part of a low-rank w2, r×(n·kernel) (r×n with a Tucker core).</summary>
    public const string W2B = "lokr_w2_b";

    /// <summary>Tucker core, r×r×kernel.</summary>
    public const string T2 = "lokr_t2";

    /// <summary>One trained number that multiplies w1 ⊗ w2 (LyCORIS <c>use_scalar</c>); LyCORIS's files have it multiplied into w1.</summary>
    public const string Scalar = "scalar";

    /// <summary>DoRA's magnitudes, out×1… or 1×in×1… (LyCORIS <c>weight_decompose</c>).</summary>
    public const string DoraScale = "dora_scale";

    /// <summary>Whether the last part of a name is that of a factor of w1 or w2, known or not.</summary>
    internal static bool IsFactor(string suffix) => suffix.StartsWith("lokr_", StringComparison.Ordinal);
}
