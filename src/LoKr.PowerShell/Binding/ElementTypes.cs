using static TorchSharp.torch;

namespace LoKr.PowerShell.Binding;

/// <summary>Element types by the names that parameters take.</summary>
internal static class ElementTypes
{
    /// <summary>The type of a name in any case: float32, bfloat16 or float16; null for none.</summary>
    public static ScalarType? Find(string? name) => name?.ToUpperInvariant() switch
    {
        null => null,
        "BFLOAT16" => ScalarType.BFloat16,
        "FLOAT16" => ScalarType.Float16,
        _ => ScalarType.Float32,
    };
}
