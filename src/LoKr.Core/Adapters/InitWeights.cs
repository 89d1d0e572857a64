namespace LoKr.Core.Adapters;

/// <summary>How fresh LoKr factors are initialised (PEFT <c>init_weights</c>).</summary>
public enum InitWeights
{
    /// <summary>w1 zero, w2 Kaiming uniform; the delta is zero (PEFT <c>true</c>).</summary>
    Default,

    /// <summary>Everything Kaiming uniform; the delta is not zero (PEFT <c>false</c>).</summary>
    Random,

    /// <summary>w1 Kaiming uniform, w2 zero, as LyCORIS does; the delta is zero (PEFT <c>"lycoris"</c>).</summary>
    Lycoris,
}
