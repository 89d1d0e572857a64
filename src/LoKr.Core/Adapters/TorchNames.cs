using static TorchSharp.torch;

namespace LoKr.Core.Adapters;

/// <summary>Names of element types and devices as PyTorch and config.json write them.</summary>
internal static class TorchNames
{
    /// <summary>Name of an element type, for example float32.</summary>
    public static string Of(ScalarType type) => type switch
    {
        ScalarType.Byte => "uint8",
        ScalarType.Float16 => "float16",
        ScalarType.Float32 => "float32",
        ScalarType.Float64 => "float64",
        ScalarType.BFloat16 => "bfloat16",
        _ => type.ToString().ToLowerInvariant(),
    };

    /// <summary>Name of a device, for example cpu or cuda:0.</summary>
    public static string Of(Device device) => device.ToString().ToLowerInvariant();
}
