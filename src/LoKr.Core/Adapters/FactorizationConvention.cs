namespace LoKr.Core.Adapters;

/// <summary>How a dimension is split into two factors; programs disagree when the factor exceeds its square root.</summary>
public enum FactorizationConvention
{
    /// <summary>A factor that divides the dimension comes first, even when it is the larger one (PEFT, ai-toolkit, OneTrainer).</summary>
    Peft,

    /// <summary>The smaller factor always comes first (LyCORIS).</summary>
    Lycoris,
}
