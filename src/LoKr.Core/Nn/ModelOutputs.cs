using LoKr.Core.Errors;

namespace LoKr.Core.Nn;

/// <summary>Faults of the numbers that a model gives.</summary>
public static class ModelOutputs
{
    /// <summary>The error <see cref="ErrorIds.LogitsNotFinite"/> of an output that is NaN or infinite.</summary>
    /// <param name="what">Subject and verb: "The scores of … are".</param>
    /// <param name="target">The text, or the model; null where there is neither.</param>
    public static LoKrException NotFinite(string what, object? target) => new(
        ErrorIds.LogitsNotFinite, LoKrErrorKind.InvalidData, $"{what} NaN or infinite.",
        "Check the weights and the adapters; in float16 a value may have overflowed, which float32 or bfloat16 avoids.") { Target = target };
}
