namespace LoKr.Core.Adapters;

/// <summary>The factor that multiplies w1 ⊗ w2; programs disagree, so it is explicit.</summary>
public enum ScalingConvention
{
    /// <summary>alpha / r, always (PEFT since 0.14).</summary>
    Peft,

    /// <summary>alpha / r, but 1 when both factors are full matrices (LyCORIS, ComfyUI, ai-toolkit, OneTrainer).</summary>
    Lycoris,

    /// <summary>1, always (adapters trained with PEFT before 0.14, whatever their config says).</summary>
    None,
}
