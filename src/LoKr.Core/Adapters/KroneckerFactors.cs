using TorchSharp;

namespace LoKr.Core.Adapters;

/// <summary>
/// w1 (full, or w1_a·w1_b) and w2 (full, w2_a·w2_b, or Tucker t2·w2_a·w2_b) with all their algebra.
/// ΔW[i1·k+i2, j1·n+j2, …] = w1[i1,j1]·w2[i2,j2,…]; scaling is applied by the caller.
/// </summary>
public sealed class KroneckerFactors
{
    /// <summary>The factors by PEFT suffix: lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b, lokr_t2.</summary>
    public IReadOnlyDictionary<string, torch.Tensor> Tensors => throw new NotImplementedException();

    /// <summary>Number of parameters.</summary>
    public long ParameterCount => throw new NotImplementedException();

    /// <summary>The dense w1 ⊗ w2 times a scale; for inspection and tests, never used by training.</summary>
    public torch.Tensor ToDense(double scale) => throw new NotImplementedException();
}
