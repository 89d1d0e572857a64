namespace LoKr.Core.Adapters;

/// <summary>What w1 and a full w2 of a one-dimensional convolution mean; every other shape of factors means w1 ⊗ w2 everywhere.</summary>
public enum Conv1dLayout
{
    /// <summary>w2 ⊗ w1: what PEFT's reshape of its product comes to.</summary>
    Peft,

    /// <summary>w1 ⊗ w2, as for every other layer (LyCORIS).</summary>
    Kronecker,
}
