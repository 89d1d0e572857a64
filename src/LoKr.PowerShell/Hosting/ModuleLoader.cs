using System.Management.Automation;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Runtime.Loader;
using LoKr.Core.Runtime;
using TorchSharp;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// Runs when the module is imported and removed. Makes <c>[TorchSharp.torch]</c> and <c>[LoKr.Core.Configuration.LoKrConfig]</c> nameable
/// at once, sends their dependencies to <see cref="DependencyLoadContext"/>, and loads libtorch the safe way when a script is the
/// first to call it. The import itself loads nothing native.
/// </summary>
public sealed class ModuleLoader : IModuleAssemblyInitializer, IModuleAssemblyCleanup
{
    // The handlers are of the process, as assemblies are; PowerShell makes an instance of this class for every import.
    private static readonly Lazy<ModuleLoader> s_registered = new(() => new ModuleLoader());
    private static readonly string s_folder = Path.GetDirectoryName(typeof(ModuleLoader).Assembly.Location)!;

    [ThreadStatic]
    private static bool s_loading;

    private readonly DependencyLoadContext _dependencies = new(Path.Combine(s_folder, "dependencies"));

    /// <inheritdoc/>
    public void OnImport()
    {
        ModuleLoader loader = s_registered.Value;
        AppDomain.CurrentDomain.AssemblyResolve -= loader.ResolveManaged;
        AppDomain.CurrentDomain.AssemblyResolve += loader.ResolveManaged;
        AssemblyLoadContext.Default.ResolvingUnmanagedDll -= loader.ResolveNative;
        AssemblyLoadContext.Default.ResolvingUnmanagedDll += loader.ResolveNative;

        // Type literals are looked up among loaded assemblies only. This loads the managed part; no torch call is made.
        foreach (string name in (string[])["TorchSharp", "LoKr.Core", "LoKr.Models"])
        {
            Assembly.Load(new AssemblyName(name));
        }
    }

    /// <inheritdoc/>
    public void OnRemove(PSModuleInfo psModuleInfo)
    {
        // Objects of the module may outlive it, and so may their need for an assembly that is not loaded yet. The handlers answer
        // only requests of our own assemblies, so they stay.
    }

    private Assembly? ResolveManaged(object? sender, ResolveEventArgs args) =>
        args.RequestingAssembly is { } requesting && IsOurs(requesting) ? _dependencies.TryLoad(new AssemblyName(args.Name)) : null;

    private bool IsOurs(Assembly requesting) => AssemblyLoadContext.GetLoadContext(requesting) == _dependencies
        || (!requesting.IsDynamic && Path.GetDirectoryName(requesting.Location) == s_folder);

    /// <summary>
    /// The first torch call of a script asks for torch_cpu by name. Loading what TorchRuntime finds keeps TorchSharp's own search,
    /// which copies libtorch into the module folder, from ever starting.
    /// </summary>
    private nint ResolveNative(Assembly assembly, string name)
    {
        // While TorchRuntime itself loads, it answers with a handler of its own.
        if (assembly != typeof(torch).Assembly || TorchRuntime.Current is not null || s_loading)
        {
            return 0;
        }

        s_loading = true;
        try
        {
            TorchRuntime.EnsureLoaded();
        }
        finally
        {
            s_loading = false;
        }

        // Loaded by full path just now, so the bare file name finds it.
        string file = OperatingSystem.IsWindows() ? $"{name}.dll" : OperatingSystem.IsMacOS() ? $"lib{name}.dylib" : $"lib{name}.so";
        return NativeLibrary.TryLoad(file, out nint handle) ? handle : 0;
    }
}

/// <summary>
/// Holds the libraries that LoKr and TorchSharp need (Google.Protobuf, SharpZipLib, SkiaSharp, tokenizers …) apart from those of
/// other modules: they come from the module's <c>dependencies</c> folder and from nowhere else.
/// </summary>
internal sealed class DependencyLoadContext : AssemblyLoadContext
{
    private readonly Dictionary<string, string> _shipped = new(StringComparer.OrdinalIgnoreCase);

    /// <summary>Lists the assemblies of a folder; none is opened yet, which keeps an import short.</summary>
    public DependencyLoadContext(string folder)
        : base("LoKr dependencies")
    {
        if (!Directory.Exists(folder))
        {
            return;
        }

        foreach (string path in Directory.EnumerateFiles(folder, "*.dll"))
        {
            _shipped[Path.GetFileNameWithoutExtension(path)] = path;
        }
    }

    /// <summary>Loads a shipped assembly; returns null if it is not one of them, or is older than requested.</summary>
    public Assembly? TryLoad(AssemblyName requested)
    {
        if (requested.Name is null || !_shipped.TryGetValue(requested.Name, out string? path))
        {
            return null;
        }

        // A request for another strong name or a newer version is for somebody else's copy.
        AssemblyName shipped = AssemblyName.GetAssemblyName(path);
        return (requested.Version is null || requested.Version <= shipped.Version) && SameKey(requested, shipped) ? LoadFromAssemblyPath(path) : null;
    }

    /// <inheritdoc/>
    protected override Assembly? Load(AssemblyName assemblyName) => TryLoad(assemblyName);

    private static bool SameKey(AssemblyName requested, AssemblyName shipped)
    {
        byte[] key = requested.GetPublicKeyToken() ?? [];
        return key.Length == 0 || key.AsSpan().SequenceEqual(shipped.GetPublicKeyToken());
    }
}
