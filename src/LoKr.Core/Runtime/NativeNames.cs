using System.Runtime.InteropServices;

namespace LoKr.Core.Runtime;

/// <summary>File names of native libraries and the runtime identifier of this platform.</summary>
internal static class NativeNames
{
    /// <summary>The portable runtime identifier, for example <c>linux-x64</c>.</summary>
    public static string RuntimeIdentifier { get; } = $"{OperatingSystemName()}-{RuntimeInformation.ProcessArchitecture switch
    {
        Architecture.Arm64 => "arm64",
        Architecture.X86 => "x86",
        Architecture.Arm => "arm",
        _ => "x64",
    }}";

    /// <summary>File name of a library on this platform: <c>torch_cpu</c> is <c>libtorch_cpu.so</c>, <c>torch_cpu.dll</c> or <c>libtorch_cpu.dylib</c>.</summary>
    public static string FileName(string library) =>
        OperatingSystem.IsWindows() ? $"{library}.dll"
        : OperatingSystem.IsMacOS() ? $"lib{library}.dylib"
        : $"lib{library}.so";

    /// <summary>Full path of a library in a folder, or null where it is not there.</summary>
    public static string? Find(string folder, string library)
    {
        string path = Path.Combine(folder, FileName(library));
        return File.Exists(path) ? path : null;
    }

    private static string OperatingSystemName() =>
        OperatingSystem.IsWindows() ? "win" : OperatingSystem.IsMacOS() ? "osx" : "linux";
}
