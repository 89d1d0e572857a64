using System.Runtime.InteropServices;
using System.Runtime.Loader;
using LoKr.Core;
using LoKr.Core.Runtime;
using SkiaSharp;

namespace LoKr.Models.Imaging;

/// <summary>
/// Finds the native part of SkiaSharp: beside the assembly, as the module ships it, or in the NuGet packages folder, as libtorch in a source
/// tree. What a program ships in its own way goes first, since the runtime asks here only when it found nothing.
/// </summary>
internal static class SkiaLibrary
{
    private const string Name = "libSkiaSharp";

    private static readonly Lazy<string?> s_path = new(Find);
    private static readonly Lazy<bool> s_hooked = new(Hook);

    /// <summary>Makes SkiaSharp's library loadable; loads nothing.</summary>
    public static void EnsureHooked() => _ = s_hooked.Value;

    /// <summary>The error for a library that was not found or does not load.</summary>
    public static LoKrException Missing(Exception exception) => new(
        ErrorIds.ImageLibraryMissing,
        LoKrErrorKind.Unavailable,
        $"The native library of SkiaSharp, which reads and writes pictures, does not load: {exception.GetBaseException().Message.Trim()}",
        "Install the module again; in a source tree, run 'dotnet restore'.",
        exception);

    private static bool Hook()
    {
        AssemblyLoadContext context = AssemblyLoadContext.GetLoadContext(typeof(SKCodec).Assembly) ?? AssemblyLoadContext.Default;
        context.ResolvingUnmanagedDll += static (assembly, name) =>
            assembly == typeof(SKCodec).Assembly && name == Name && s_path.Value is string path ? NativeLibrary.Load(path) : 0;
        return true;
    }

    private static string? Find()
    {
        string rid = NativeNames.RuntimeIdentifier;
        string file = OperatingSystem.IsWindows() ? $"{Name}.dll" : OperatingSystem.IsMacOS() ? $"{Name}.dylib" : $"{Name}.so";
        (string package, string folder) = OperatingSystem.IsWindows() ? ("win32", rid) : OperatingSystem.IsMacOS() ? ("macos", "osx") : ("linux.nodependencies", rid);
        string packages = Path.Combine(RuntimeSearchPaths.FromEnvironment().NuGetPackages, $"skiasharp.nativeassets.{package}");
        string[] places =
        [
            Path.Combine(Path.GetDirectoryName(typeof(SKCodec).Assembly.Location) ?? AppContext.BaseDirectory, "runtimes", folder, "native"),
            .. Versions(packages).Select(other => Path.Combine(other, "runtimes", folder, "native")),
        ];
        return places.Select(place => Path.Combine(place, file)).FirstOrDefault(File.Exists);
    }

    // The assembly's version leaves out the last number of the package's: 2.88.0 for 2.88.9.
    private static IEnumerable<string> Versions(string packages)
    {
        Version assembly = typeof(SKCodec).Assembly.GetName().Version!;
        return !Directory.Exists(packages)
            ? []
            : Directory.EnumerateDirectories(packages, $"{assembly.Major}.{assembly.Minor}.*").OrderByDescending(folder => folder, StringComparer.Ordinal);
    }
}
