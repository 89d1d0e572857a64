using System.Reflection;
using LoKr.Core.Errors;
using TorchSharp;

namespace LoKr.Core.Runtime;

/// <summary>Finds a libtorch of the right version; loads nothing.</summary>
internal sealed class RuntimeLocator(RuntimeSearchPaths paths)
{
    private const string UserStore = "UserStore";
    private const string AllUsersStore = "AllUsersStore";

    private const string InstallAdvice =
        "Install it, or set LOKR_RUNTIME to a folder with libtorch or to an installed PyTorch of that version; in a source tree, run 'dotnet restore'.";

    private readonly List<string> _searched = [];

    /// <summary>The runtime to use.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeNotFound</c>, <c>LoKr.RuntimeVersionMismatch</c>.</exception>
    public RuntimeCandidate Locate(RuntimeOptions options)
    {
        if (options.Path is not null)
        {
            return Checked(FromFolder(options.Path, "Parameter"), options);
        }

        if (paths.Environment is not null)
        {
            return Checked(FromFolder(paths.Environment, "Environment"), options);
        }

        RuntimeCandidate? other = null;
        foreach (RuntimeCandidate candidate in Automatic())
        {
            if (Fits(candidate))
            {
                return candidate;
            }

            other ??= candidate;
        }

        return other is not null
            ? Checked(other, options)
            : throw new LoKrException(
                ErrorIds.RuntimeNotFound,
                LoKrErrorKind.Unavailable,
                $"libtorch {paths.ExpectedLibtorch} for {NativeNames.RuntimeIdentifier} was not found. Searched: {string.Join("; ", _searched)}.",
                InstallAdvice);
    }

    /// <summary>Every runtime that is there, of whatever version, in the order in which they are searched.</summary>
    public IReadOnlyList<RuntimeCandidate> All()
    {
        List<RuntimeCandidate> found = [.. Automatic()];
        found.AddRange(Installed(paths.UserStore, UserStore).Concat(Installed(paths.SharedStore, AllUsersStore)));
        if (paths.Environment is not null && FindLibtorch(paths.Environment) is string folder && FindLibTorchSharp(folder) is string native)
        {
            found.Insert(0, Describe(folder, native, "Environment"));
        }

        return [.. found.DistinctBy(candidate => candidate.Folder)];
    }

    private IEnumerable<RuntimeCandidate> Installed(RuntimeStore store, string source) => store.Installed()
        .Select(folder => FindLibTorchSharp(folder) is string native ? Describe(folder, native, source) : null)
        .OfType<RuntimeCandidate>();

    private IEnumerable<RuntimeCandidate> Automatic()
    {
        string rid = NativeNames.RuntimeIdentifier;
        (string Folder, string Source)[] places =
        [
            (paths.UserStore.FolderFor(paths.ExpectedLibtorch, "cuda", rid), UserStore),
            (paths.UserStore.FolderFor(paths.ExpectedLibtorch, "cpu", rid), UserStore),
            (paths.SharedStore.FolderFor(paths.ExpectedLibtorch, "cuda", rid), AllUsersStore),
            (paths.SharedStore.FolderFor(paths.ExpectedLibtorch, "cpu", rid), AllUsersStore),
            (Path.Combine(paths.ModuleFolder, "runtimes", rid, "native"), "Module"),
            (paths.ModuleFolder, "Module"),
        ];
        foreach ((string folder, string source) in places)
        {
            _searched.Add(folder);
            if (NativeNames.Find(folder, "torch_cpu") is not null && FindLibTorchSharp(folder) is string native)
            {
                yield return Describe(folder, native, source);
            }
        }

        _searched.Add(Path.Combine(paths.NuGetPackages, $"libtorch-…-{rid}"));
        IReadOnlyList<string> cuda = CudaPackages.Find(paths.NuGetPackages, paths.ExpectedLibtorch, rid);
        if (cuda.Count > 0 && FindLibTorchSharp(paths.ModuleFolder) is string cudaNative)
        {
            string folder = CudaPackages.FolderFor(paths.UserStore, paths.ExpectedLibtorch, cuda);
            yield return new RuntimeCandidate(folder, cudaNative, paths.ExpectedLibtorch, "cuda", "NuGet") { Packages = cuda };
        }

        foreach (string folder in NuGetFolders(rid))
        {
            if (NativeNames.Find(folder, "torch_cpu") is not null && FindLibTorchSharp(folder) is string native)
            {
                yield return Describe(folder, native, "NuGet");
            }
        }
    }

    private IEnumerable<string> NuGetFolders(string rid)
    {
        if (!Directory.Exists(paths.NuGetPackages))
        {
            yield break;
        }

        // The exact version first, so that another one is only named in the error where nothing fits.
        IEnumerable<string> versions = Directory.EnumerateDirectories(paths.NuGetPackages, $"libtorch-cpu-{rid}")
            .SelectMany(Directory.EnumerateDirectories)
            .OrderByDescending(folder => RuntimeSearchPaths.ThreeParts(Path.GetFileName(folder)) == paths.ExpectedLibtorch)
            .ThenByDescending(folder => folder, StringComparer.Ordinal);
        foreach (string version in versions)
        {
            yield return Path.Combine(version, "runtimes", rid, "native");
        }
    }

    private RuntimeCandidate FromFolder(string path, string source)
    {
        string folder = Path.GetFullPath(path);
        if (!Directory.Exists(folder))
        {
            throw NoLibtorch(source, folder, $"The runtime folder '{folder}' does not exist.");
        }

        string found = FindLibtorch(folder) ?? throw NoLibtorch(source, folder, $"The runtime folder '{folder}' holds no {NativeNames.FileName("torch_cpu")}.");
        string native = FindLibTorchSharp(found) ?? throw new LoKrException(
            ErrorIds.RuntimeNotFound,
            LoKrErrorKind.NotFound,
            $"libtorch was found in '{found}', but TorchSharp's own library {NativeNames.FileName("LibTorchSharp")} {paths.TorchSharpVersion} was not.",
            "It is part of the module: install that again; in a source tree, run 'dotnet restore'.")
        {
            Target = found,
        };
        return Describe(found, native, source);
    }

    /// <summary>
    /// The folder with the libtorch libraries that a folder is or holds: an unpacked libtorch, a NuGet package, an installed PyTorch, its site-packages or
    /// its virtual environment. Null where there is none.
    /// </summary>
    public static string? FindLibtorch(string path)
    {
        string folder = Path.GetFullPath(path);
        string[] inside =
        [
            folder,
            Path.Combine(folder, "lib"),
            Path.Combine(folder, "torch", "lib"),
            Path.Combine(folder, "runtimes", NativeNames.RuntimeIdentifier, "native"),
            Path.Combine(folder, "Lib", "site-packages", "torch", "lib"),
            .. ((string[])["lib", "lib64"]).Select(lib => Path.Combine(folder, lib)).Where(Directory.Exists)
                .SelectMany(lib => Directory.EnumerateDirectories(lib, "python3*").Order(StringComparer.Ordinal))
                .Select(python => Path.Combine(python, "site-packages", "torch", "lib")),
        ];
        return inside.FirstOrDefault(candidate => NativeNames.Find(candidate, "torch_cpu") is not null);
    }

    /// <summary>The error for a libtorch of another version than TorchSharp was built for.</summary>
    /// <param name="folder">Its folder.</param>
    /// <param name="version">Its version; null where it cannot be determined.</param>
    /// <param name="paths">The version that is needed.</param>
    public static LoKrException WrongVersion(string folder, string? version, RuntimeSearchPaths paths) => new(
        ErrorIds.RuntimeVersionMismatch,
        LoKrErrorKind.NotSupported,
        $"{(version is null ? $"The version of the libtorch in '{folder}' cannot be determined" : $"The libtorch in '{folder}' is version {version}")}; TorchSharp {paths.TorchSharpVersion} was built for {paths.ExpectedLibtorch}.",
        $"Use that version (for a PyTorch: pip install torch=={paths.ExpectedLibtorch} --index-url https://download.pytorch.org/whl/cpu, or another index there for CUDA), or allow the mismatch at the risk of wrong results or a crash.")
    {
        Target = folder,
    };

    /// <summary>TorchSharp's native library: beside libtorch, with the module, beside TorchSharp.dll, or in its NuGet package.</summary>
    private string? FindLibTorchSharp(string folder)
    {
        string rid = NativeNames.RuntimeIdentifier;
        string[] folders =
        [
            folder,
            Path.Combine(paths.ModuleFolder, "runtimes", rid, "native"),
            paths.ModuleFolder,
            paths.TorchSharpFolder,
            Path.Combine(paths.TorchSharpFolder, "runtimes", rid, "native"),
            Path.Combine(paths.NuGetPackages, "torchsharp", paths.TorchSharpVersion, "runtimes", rid, "native"),
        ];
        return folders.Select(candidate => NativeNames.Find(candidate, "LibTorchSharp")).FirstOrDefault(found => found is not null);
    }

    private static RuntimeCandidate Describe(string folder, string native, string source) => new(
        folder,
        native,
        LibtorchVersion.Detect(folder),
        NativeNames.Find(folder, "torch_cuda") is null ? "cpu" : "cuda",
        source);

    private bool Fits(RuntimeCandidate candidate) =>
        candidate.Version is not null && RuntimeSearchPaths.ThreeParts(candidate.Version) == paths.ExpectedLibtorch;

    private RuntimeCandidate Checked(RuntimeCandidate candidate, RuntimeOptions options)
    {
        if (Fits(candidate) || options.AllowVersionMismatch)
        {
            return candidate;
        }

        throw WrongVersion(candidate.Folder, candidate.Version, paths);
    }

    private LoKrException NoLibtorch(string source, string folder, string message) => new(
        ErrorIds.RuntimeNotFound,
        LoKrErrorKind.Unavailable,
        source == "Environment" ? $"{message} It was named by LOKR_RUNTIME." : message,
        $"Name a folder with libtorch {paths.ExpectedLibtorch}, or an installed PyTorch of that version: its lib folder, its site-packages or its virtual environment.")
    {
        Target = folder,
    };
}

/// <summary>A libtorch that was found, not yet loaded.</summary>
/// <param name="Folder">Folder of the libtorch libraries; made on loading where <see cref="Packages"/> is not empty.</param>
/// <param name="LibTorchSharp">Full path of TorchSharp's native library.</param>
/// <param name="Version">Version of libtorch without build label, or null where it cannot be determined.</param>
/// <param name="Flavor"><c>cpu</c> or <c>cuda</c>.</param>
/// <param name="Source">Where it was found.</param>
internal sealed record RuntimeCandidate(string Folder, string LibTorchSharp, string? Version, string Flavor, string Source)
{
    /// <summary>Folders of the NuGet packages over which a CUDA build of libtorch is spread.</summary>
    public IReadOnlyList<string> Packages { get; init; } = [];
}

/// <summary>Where to look for libtorch and what to accept.</summary>
/// <param name="Path">Folder with the libtorch libraries, or the <c>lib</c> folder of an installed PyTorch; null searches the usual places.</param>
/// <param name="AllowVersionMismatch">Accept a libtorch of another version than TorchSharp was built for.</param>
/// <param name="Threads">Number of threads that torch computes with in this process; null takes <c>LOKR_THREADS</c> when it is loaded, or as many as there are processors.</param>
public sealed record RuntimeOptions(string? Path = null, bool AllowVersionMismatch = false, int? Threads = null);

/// <summary>The places where libtorch is looked for, and the versions that fit.</summary>
/// <param name="Environment">Value of <c>LOKR_RUNTIME</c>, or null.</param>
/// <param name="Store">Per-user store of runtimes.</param>
/// <param name="ModuleFolder">Folder of LoKr.Core.dll.</param>
/// <param name="TorchSharpFolder">Folder of TorchSharp.dll.</param>
/// <param name="NuGetPackages">NuGet's global packages folder.</param>
/// <param name="TorchSharpVersion">Version of TorchSharp, for example 0.107.0.</param>
/// <param name="ExpectedLibtorch">Version of libtorch TorchSharp was built for, for example 2.10.0.</param>
internal sealed record RuntimeSearchPaths(
    string? Environment,
    string Store,
    string ModuleFolder,
    string TorchSharpFolder,
    string NuGetPackages,
    string TorchSharpVersion,
    string ExpectedLibtorch)
{
    /// <summary>Store of runtimes for every user of the machine.</summary>
    public string Shared { get; init; } = Path.Combine(MachineFolder(), "LoKr", "runtime");

    /// <summary>The store of this user.</summary>
    public RuntimeStore UserStore => new(Store);

    /// <summary>The store of the machine.</summary>
    public RuntimeStore SharedStore => new(Shared, forAllUsers: true);

    /// <summary>The places of this process and user.</summary>
    public static RuntimeSearchPaths FromEnvironment()
    {
        // typeof does not run torch's static constructor; nothing native is touched here.
        Assembly torchSharp = typeof(torch).Assembly;
        return new RuntimeSearchPaths(
            Variable("LOKR_RUNTIME"),
            Path.Combine(Home(), "runtime"),
            FolderOf(typeof(RuntimeSearchPaths).Assembly),
            FolderOf(torchSharp),
            Variable("NUGET_PACKAGES") ?? Path.Combine(UserFolder(), ".nuget", "packages"),
            ThreeParts(torchSharp.GetName().Version?.ToString() ?? "unknown"),
            ThreeParts(Constant("libtorchPackageVersion")));
    }

    /// <summary>The first three numbers of a version without its build label: 2.10.0.1 and 2.10.0+cpu are 2.10.0.</summary>
    public static string ThreeParts(string version)
    {
        string[] parts = version.Split('+', 2)[0].Split('.');
        return string.Join('.', parts.Take(3));
    }

    private static string Home()
    {
        string? home = Variable("LOKR_HOME");
        if (home is not null)
        {
            return Path.GetFullPath(home);
        }

        string data = System.Environment.GetFolderPath(
            System.Environment.SpecialFolder.LocalApplicationData,
            System.Environment.SpecialFolderOption.DoNotVerify);
        return Path.Combine(data.Length > 0 ? data : Path.Combine(UserFolder(), ".local", "share"), "LoKr");
    }

    // Where only administrators write. On Windows everybody may create files below the folder for common data.
    private static string MachineFolder() => OperatingSystem.IsWindows()
        ? System.Environment.GetFolderPath(System.Environment.SpecialFolder.ProgramFiles)
        : OperatingSystem.IsMacOS() ? "/Library/Application Support" : "/usr/local/share";

    private static string UserFolder()
    {
        string user = System.Environment.GetFolderPath(
            System.Environment.SpecialFolder.UserProfile,
            System.Environment.SpecialFolderOption.DoNotVerify);
        return user.Length > 0 ? user : Path.GetTempPath();
    }

    private static string FolderOf(Assembly assembly) =>
        assembly.Location.Length > 0 ? Path.GetDirectoryName(assembly.Location)! : AppContext.BaseDirectory;

    private static string? Variable(string name)
    {
        string? value = System.Environment.GetEnvironmentVariable(name);
        return string.IsNullOrWhiteSpace(value) ? null : value;
    }

    /// <summary>
    /// A private constant of TorchSharp, such as the version of libtorch that it was compiled against. A constant is read from metadata, so nothing runs.
    /// </summary>
    public static string Constant(string name) =>
        typeof(torch).GetField(name, BindingFlags.NonPublic | BindingFlags.Public | BindingFlags.Static)?.GetRawConstantValue() as string
        ?? throw new LoKrException(
            ErrorIds.RuntimeVersionMismatch,
            LoKrErrorKind.NotSupported,
            $"This release of TorchSharp ({typeof(torch).Assembly.GetName().Version}) does not say which libtorch it was built for ({name}).",
            "Use the TorchSharp release that LoKr was built with.");
}
