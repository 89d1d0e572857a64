namespace LoKr.Core.Adapters;

/// <summary>The axis along which DoRA takes its norms (LyCORIS <c>wd_on_out</c>).</summary>
public enum WeightDecomposeAxis
{
    /// <summary>One norm per output row.</summary>
    Output,

    /// <summary>One norm per input column.</summary>
    Input,
}
