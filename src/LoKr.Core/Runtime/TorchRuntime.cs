using LoKr.Core.Errors;
using LoKr.Core.IO;
using TorchSharp;

namespace LoKr.Core.Runtime;

/// <summary>
/// Finds libtorch and loads it before the first torch call, so that TorchSharp's own loader never runs. What reads or builds tensors or
/// models from files loads it without being asked; a program that uses TorchSharp's own functions or modules before that calls
/// <see cref="EnsureLoaded"/> first.
/// The only static state of the library: native libraries are process-wide.
/// </summary>
public static class TorchRuntime
{
    private static readonly Lock s_lock = new();
    private static LoKrRuntimeInfo? s_current;

    // Its libraries are there, its numbers are not checked yet. Only the thread that loads sees it: the first torch call asks for the runtime again.
    private static LoKrRuntimeInfo? s_loading;

    /// <summary>The loaded runtime, or null.</summary>
    public static LoKrRuntimeInfo? Current => Volatile.Read(ref s_current);

    /// <summary>
    /// Loads the runtime once; later calls return what is loaded. Search order: <see cref="RuntimeOptions.Path"/>, <c>LOKR_RUNTIME</c>,
    /// the per-user store, the folder of the module, the NuGet packages folder.
    /// </summary>
    /// <exception cref="LoKrException">
    /// <c>LoKr.RuntimeNotFound</c>, <c>LoKr.RuntimeVersionMismatch</c>, <c>LoKr.RuntimeLoadFailed</c>, <c>LoKr.RuntimeStoreNotWritable</c>,
    /// <c>LoKr.RuntimeStoreUntrusted</c>, <c>LoKr.RuntimeDamaged</c>;
    /// <c>LoKr.RuntimeAlreadyLoaded</c> when a path is named and another runtime is in the process;
    /// <c>LoKr.InvalidArgument</c> for a number of threads that is not positive.
    /// </exception>
    public static LoKrRuntimeInfo EnsureLoaded(RuntimeOptions? options = null)
    {
        if (options is null or { Path: null, Threads: null } && Current is LoKrRuntimeInfo current)
        {
            return current;
        }

        options ??= new RuntimeOptions();
        int? threads = options.Threads is null && Current is not null ? null : TorchThreads.Requested(options.Threads);
        lock (s_lock)
        {
            if (s_loading is LoKrRuntimeInfo loading)
            {
                return loading;
            }

            LoKrRuntimeInfo info = s_current is null ? Load(options) : options.Path is null ? s_current : SameOrRefused(s_current, options);
            if (threads is int count)
            {
                TorchThreads.SetCount(count);
            }

            return info;
        }
    }

    /// <summary>Finds the runtime without loading it; returns the loaded one where there is one and no path is named.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeNotFound</c>, <c>LoKr.RuntimeVersionMismatch</c>.</exception>
    public static LoKrRuntimeInfo Find(RuntimeOptions? options = null)
    {
        options ??= new RuntimeOptions();
        LoKrRuntimeInfo? current = Current;
        if (current is not null && options.Path is null)
        {
            return current;
        }

        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        LoKrRuntimeInfo found = Describe(new RuntimeLocator(paths).Locate(options), paths, []);
        return current is not null && current.Path == found.Path ? current : found;
    }

    /// <summary>
    /// Every runtime of whatever version that this machine has in the places that are searched, in their order; nothing is loaded. Files and owners are
    /// examined when one is loaded.
    /// </summary>
    public static IReadOnlyList<LoKrRuntimeInfo> ListAvailable()
    {
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        LoKrRuntimeInfo? current = Current;
        return [.. new RuntimeLocator(paths).All().Select(candidate => candidate.Folder == current?.Path ? current : Describe(candidate, paths, []))];
    }

    /// <summary>A native library that was installed beside libtorch, checked as that is; null where there is none.</summary>
    /// <param name="fileName">Name of the file, for example <c>libSkiaSharp.dylib</c>.</param>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeStoreUntrusted</c>, <c>LoKr.RuntimeDamaged</c>.</exception>
    public static string? FindInstalled(string fileName)
    {
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        foreach (RuntimeStore store in (RuntimeStore[])[paths.UserStore, paths.SharedStore])
        {
            if (store.Installed().Select(folder => Path.Combine(folder, fileName)).FirstOrDefault(File.Exists) is string path)
            {
                store.Verify(Path.GetDirectoryName(path)!);
                return path;
            }
        }

        return null;
    }

    private static LoKrRuntimeInfo Load(RuntimeOptions options)
    {
        RuntimeSearchPaths paths = RuntimeSearchPaths.FromEnvironment();
        RuntimeStore store = paths.UserStore;
        store.RequireTrusted();
        RuntimeCandidate candidate = new RuntimeLocator(paths).Locate(options);
        if (candidate.Packages.Count > 0)
        {
            CudaPackages.Assemble(store, candidate.Folder, candidate.Packages, paths.ExpectedLibtorch, NativeNames.RuntimeIdentifier);
        }

        foreach (RuntimeStore owner in ((RuntimeStore[])[store, paths.SharedStore]).Where(owner => owner.Contains(candidate.Folder)))
        {
            owner.Verify(candidate.Folder);
        }

        List<string> workarounds = [];
        string libTorchSharp = LibstdcxxWorkaround.Apply(candidate.LibTorchSharp, store, workarounds);
        TorchThreads.SetWaitPolicy();
        NativeLoader.Load(candidate, libTorchSharp);
        s_loading = Describe(candidate, paths, workarounds) with { IsLoaded = true };
        try
        {
            OneDnnWorkaround.Apply(candidate.Folder, workarounds);
            LoKrRuntimeInfo info = Describe(candidate, paths, workarounds) with { IsLoaded = true, Devices = ListDevices(candidate) };
            Volatile.Write(ref s_current, info);
            return info;
        }
        finally
        {
            s_loading = null;
        }
    }

    private static LoKrRuntimeInfo SameOrRefused(LoKrRuntimeInfo current, RuntimeOptions options)
    {
        // The version was checked when it was loaded.
        RuntimeCandidate asked = new RuntimeLocator(RuntimeSearchPaths.FromEnvironment()).Locate(options with { AllowVersionMismatch = true });
        return asked.Folder == current.Path
            ? current
            : throw new LoKrException(
                ErrorIds.RuntimeAlreadyLoaded,
                LoKrErrorKind.InvalidOperation,
                $"libtorch {current.LibtorchVersion} is already loaded from '{current.Path}'; a process cannot change to '{asked.Folder}'.",
                "Start a new process and name the runtime before anything else uses torch.")
            {
                Target = options.Path,
            };
    }

    private static LoKrRuntimeInfo Describe(RuntimeCandidate candidate, RuntimeSearchPaths paths, IReadOnlyList<string> workarounds) => new()
    {
        TorchSharpVersion = paths.TorchSharpVersion,
        LibtorchVersion = candidate.Version ?? "unknown",
        ExpectedLibtorchVersion = paths.ExpectedLibtorch,
        Flavor = candidate.Flavor,
        Path = candidate.Folder,
        Source = candidate.Source,
        IsLoaded = false,
        Devices = [],
        Workarounds = workarounds,
    };

    private static List<string> ListDevices(RuntimeCandidate candidate)
    {
        List<string> devices = ["cpu"];
        try
        {
            torch.InitializeDeviceType(DeviceType.CPU);
            if (candidate.Flavor == "cuda" && torch.cuda.is_available())
            {
                devices.AddRange(Enumerable.Range(0, torch.cuda.device_count()).Select(index => $"cuda:{index}"));
            }
        }
        catch (Exception exception) when (exception is TypeInitializationException or NotSupportedException or DllNotFoundException or EntryPointNotFoundException)
        {
            throw new LoKrException(
                ErrorIds.RuntimeLoadFailed,
                LoKrErrorKind.Unavailable,
                $"The libraries of '{candidate.Folder}' were loaded, but TorchSharp does not work with them: {exception.GetBaseException().Message}",
                "Use the libtorch that TorchSharp was built for.",
                exception)
            {
                Target = candidate.Folder,
            };
        }

        return devices;
    }
}

/// <summary>The native runtime that was found or loaded.</summary>
public sealed record LoKrRuntimeInfo
{
    /// <summary>Version of TorchSharp.</summary>
    public required string TorchSharpVersion { get; init; }

    /// <summary>Version of libtorch, for example 2.10.0.</summary>
    public required string LibtorchVersion { get; init; }

    /// <summary>Version of libtorch that TorchSharp was built for.</summary>
    public required string ExpectedLibtorchVersion { get; init; }

    /// <summary><c>cpu</c> or <c>cuda</c>.</summary>
    public required string Flavor { get; init; }

    /// <summary>Folder the libraries are loaded from.</summary>
    public required string Path { get; init; }

    /// <summary>Where it was found: Parameter, Environment, UserStore, AllUsersStore, Module or NuGet.</summary>
    public required string Source { get; init; }

    /// <summary>Whether the libraries are loaded in this process.</summary>
    public required bool IsLoaded { get; init; }

    /// <summary>Devices that can be used; empty until loaded.</summary>
    public required IReadOnlyList<string> Devices { get; init => field = ValueList.Of(value); }

    /// <summary>Number of threads that torch computes with on the CPU; null until loaded.</summary>
    public int? Threads => IsLoaded ? torch.get_num_threads() : null;

    /// <summary>Workarounds that this machine needed, in words.</summary>
    public required IReadOnlyList<string> Workarounds { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => $"libtorch {LibtorchVersion} ({Flavor})";
}
