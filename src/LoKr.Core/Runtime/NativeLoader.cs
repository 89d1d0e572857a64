using System.Runtime.InteropServices;
using System.Runtime.Loader;
using LoKr.Core.Errors;
using TorchSharp;

namespace LoKr.Core.Runtime;

/// <summary>
/// Loads libtorch and TorchSharp's library by full path, dependencies first, from where they are. The system's loader then finds them by name,
/// so TorchSharp's own loader, which copies hundreds of megabytes and prints to the console, has nothing left to do.
/// </summary>
internal static partial class NativeLoader
{
    // Dependencies first. torch_global_deps brings the CUDA libraries of a PyTorch wheel, torch_cuda registers the CUDA kernels.
    private static readonly string[] s_order = ["c10", "torch_global_deps", "torch_cpu", "c10_cuda", "torch_cuda", "torch"];

    /// <summary>Loads a runtime into this process.</summary>
    public static void Load(RuntimeCandidate candidate, string libTorchSharp)
    {
        Dictionary<string, nint> handles = new(StringComparer.Ordinal);
        foreach (string library in s_order)
        {
            if (NativeNames.Find(candidate.Folder, library) is string path)
            {
                handles[library] = LoadOne(path, candidate);
            }
        }

        handles["LibTorchSharp"] = LoadOne(libTorchSharp, candidate);

        // Last resort of the managed resolver, for systems whose loader does not match a bare name to a library already loaded.
        AssemblyLoadContext context = AssemblyLoadContext.GetLoadContext(typeof(torch).Assembly) ?? AssemblyLoadContext.Default;
        context.ResolvingUnmanagedDll += (_, name) => handles.GetValueOrDefault(name);
    }

    private static nint LoadOne(string path, RuntimeCandidate candidate)
    {
        try
        {
            if (OperatingSystem.IsLinux() && Path.GetFileName(path) == NativeNames.FileName("LibTorchSharp"))
            {
                BindNow(path);
            }

            return NativeLibrary.Load(path);
        }
        catch (Exception exception) when (exception is DllNotFoundException or BadImageFormatException)
        {
            throw new LoKrException(
                ErrorIds.RuntimeLoadFailed,
                LoKrErrorKind.Unavailable,
                $"'{path}' could not be loaded: {exception.Message.Trim()}",
                Advice(candidate),
                exception)
            {
                Target = path,
            };
        }
    }

    // A function missing in libtorch would end the process at its first call; binding everything now makes it an error that can be caught.
    private static void BindNow(string path)
    {
        const int Now = 2;

        // The first call of a function looks it up in libc, which would overwrite the reason; so dlerror is looked up before there is one.
        _ = DlError();
        if (DlOpen(path, Now) == 0)
        {
            string reason = Marshal.PtrToStringUTF8(DlError()) ?? "unknown reason";
            throw new DllNotFoundException(reason);
        }
    }

    private static string Advice(RuntimeCandidate candidate) => OperatingSystem.IsWindows()
        ? "Install the Microsoft Visual C++ 2015-2022 redistributable, and check that the libraries in the folder are complete."
        : candidate.Version is null || RuntimeSearchPaths.ThreeParts(candidate.Version) != RuntimeSearchPaths.FromEnvironment().ExpectedLibtorch
            ? $"This libtorch ({candidate.Version ?? "unknown version"}) does not go with TorchSharp, which was built for {RuntimeSearchPaths.FromEnvironment().ExpectedLibtorch}: use that version."
            : "Check that the libraries in the folder are complete and made for this system.";

    [LibraryImport("libc.so.6", EntryPoint = "dlopen", StringMarshalling = StringMarshalling.Utf8)]
    private static partial nint DlOpen(string path, int flags);

    [LibraryImport("libc.so.6", EntryPoint = "dlerror")]
    private static partial nint DlError();
}

/// <summary>File names and places of native libraries on this platform.</summary>
public static class NativeNames
{
    /// <summary>The portable runtime identifier, for example <c>linux-x64</c>.</summary>
    public static string RuntimeIdentifier { get; } = $"{OperatingSystemName()}-{RuntimeInformation.ProcessArchitecture switch
    {
        Architecture.Arm64 => "arm64",
        Architecture.X86 => "x86",
        Architecture.Arm => "arm",
        _ => "x64",
    }}";

    /// <summary>NuGet's folder of restored packages: <c>NUGET_PACKAGES</c>, or the one in the user's folder.</summary>
    public static string PackagesFolder => RuntimeSearchPaths.FromEnvironment().NuGetPackages;

    /// <summary>File name of a library on this platform: <c>torch_cpu</c> is <c>libtorch_cpu.so</c>, <c>torch_cpu.dll</c> or <c>libtorch_cpu.dylib</c>.</summary>
    /// <param name="library">Name without prefix and extension.</param>
    public static string FileName(string library) =>
        OperatingSystem.IsWindows() ? $"{library}.dll"
        : OperatingSystem.IsMacOS() ? $"lib{library}.dylib"
        : $"lib{library}.so";

    /// <summary>Full path of a library in a folder, or null where it is not there.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="library">Name without prefix and extension.</param>
    public static string? Find(string folder, string library)
    {
        string path = Path.Combine(folder, FileName(library));
        return File.Exists(path) ? path : null;
    }

    private static string OperatingSystemName() =>
        OperatingSystem.IsWindows() ? "win" : OperatingSystem.IsMacOS() ? "osx" : "linux";
}
