using System.Globalization;
using LoKr.Core.Errors;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Runtime;

/// <summary>Turns <c>auto</c>, <c>cpu</c>, <c>cuda</c> or <c>cuda:N</c> into a device that exists.</summary>
public static class DeviceSelector
{
    /// <summary>
    /// Selects a device: <c>auto</c> is the first GPU where one can be used, else the CPU; <c>cuda</c> is <c>cuda:0</c>.
    /// Loads the runtime. A GPU that was asked for and is missing is an error.
    /// </summary>
    /// <exception cref="LoKrException"><c>LoKr.DeviceInvalid</c>, <c>LoKr.DeviceNotFound</c>, and those of <see cref="TorchRuntime.EnsureLoaded"/>.</exception>
    public static torch.Device Select(string device)
    {
        ArgumentNullException.ThrowIfNull(device);
        string name = Normalize(device);
        LoKrRuntimeInfo runtime = TorchRuntime.EnsureLoaded();
        string chosen = Choose(name, runtime);
        return torch.device(chosen);
    }

    /// <summary>Checks the spelling: auto, cpu, or cuda:N.</summary>
    internal static string Normalize(string device)
    {
        string name = device.Trim().ToLowerInvariant();
        if (name is "auto" or "cpu")
        {
            return name;
        }

        if (name == "cuda")
        {
            return "cuda:0";
        }

        return name.StartsWith("cuda:", StringComparison.Ordinal)
            && int.TryParse(name.AsSpan(5), NumberStyles.None, CultureInfo.InvariantCulture, out int index)
                ? $"cuda:{index}"
                : throw new LoKrException(
                    ErrorIds.DeviceInvalid,
                    LoKrErrorKind.InvalidArgument,
                    $"'{device}' is not a device.",
                    "Use auto, cpu, cuda or cuda:N with the number of the GPU.")
                {
                    Target = device,
                };
    }

    /// <summary>The device of a checked name among those of a runtime.</summary>
    internal static string Choose(string name, LoKrRuntimeInfo runtime)
    {
        if (name == "auto")
        {
            return runtime.Devices.FirstOrDefault(candidate => candidate.StartsWith("cuda", StringComparison.Ordinal)) ?? "cpu";
        }

        return runtime.Devices.Contains(name)
            ? name
            : throw new LoKrException(
                ErrorIds.DeviceNotFound,
                LoKrErrorKind.Unavailable,
                $"Device {name} is not available; the runtime in '{runtime.Path}' ({runtime.Flavor}) offers: {string.Join(", ", runtime.Devices)}.",
                runtime.Flavor == "cpu"
                    ? "Use a CUDA build of libtorch (LOKR_RUNTIME, or the lib folder of a PyTorch with CUDA), or the device cpu."
                    : "Check the driver with nvidia-smi, or use one of the devices listed.")
            {
                Target = name,
            };
    }
}

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
