using System.Reflection;
using LoKr.Core.Errors;
using TorchSharp;

namespace LoKr.Core.Runtime;

/// <summary>Finds a libtorch of the right version; loads nothing.</summary>
internal sealed class RuntimeLocator(RuntimeSearchPaths paths)
{
    private const string InstallAdvice =
        "Set LOKR_RUNTIME to a folder with libtorch or to the lib folder of an installed PyTorch of that version, "
        + "or restore the NuGet packages of the source tree with 'dotnet restore'.";

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

    private IEnumerable<RuntimeCandidate> Automatic()
    {
        string rid = NativeNames.RuntimeIdentifier;
        (string Folder, string Source)[] places =
        [
            (Path.Combine(paths.Store, $"{paths.ExpectedLibtorch}-cuda", rid), "UserStore"),
            (Path.Combine(paths.Store, $"{paths.ExpectedLibtorch}-cpu", rid), "UserStore"),
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
            string folder = CudaPackages.FolderFor(new RuntimeStore(paths.Store), paths.ExpectedLibtorch, cuda);
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
            throw NoLibtorch(source, $"The runtime folder '{folder}' does not exist.");
        }

        string[] inside = [folder, Path.Combine(folder, "lib"), Path.Combine(folder, "runtimes", NativeNames.RuntimeIdentifier, "native")];
        string? found = inside.FirstOrDefault(candidate => NativeNames.Find(candidate, "torch_cpu") is not null);
        if (found is null)
        {
            throw NoLibtorch(source, $"The runtime folder '{folder}' holds no {NativeNames.FileName("torch_cpu")}.");
        }

        string native = FindLibTorchSharp(found) ?? throw NoLibtorch(
            source,
            $"libtorch was found in '{found}', but TorchSharp's own library {NativeNames.FileName("LibTorchSharp")} {paths.TorchSharpVersion} was not.");
        return Describe(found, native, source);
    }

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

        string what = candidate.Version is null
            ? $"The version of the libtorch in '{candidate.Folder}' cannot be determined"
            : $"The libtorch in '{candidate.Folder}' is version {candidate.Version}";
        throw new LoKrException(
            ErrorIds.RuntimeVersionMismatch,
            LoKrErrorKind.NotSupported,
            $"{what}; TorchSharp {paths.TorchSharpVersion} was built for {paths.ExpectedLibtorch}.",
            $"Use libtorch {paths.ExpectedLibtorch}, or allow the mismatch at the risk of wrong results or a crash.")
        {
            Target = candidate.Folder,
        };
    }

    private static LoKrException NoLibtorch(string source, string message) => new(
        ErrorIds.RuntimeNotFound,
        LoKrErrorKind.Unavailable,
        source == "Environment" ? $"{message} It was named by LOKR_RUNTIME." : message,
        "Name a folder with the libtorch libraries, or the lib folder of an installed PyTorch.");
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
            ThreeParts(LibtorchOf()));
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

    // TorchSharp keeps the libtorch it was compiled against in a private constant; a constant is read from metadata, so nothing runs.
    private static string LibtorchOf() =>
        typeof(torch).GetField("libtorchPackageVersion", BindingFlags.NonPublic | BindingFlags.Public | BindingFlags.Static)
            ?.GetRawConstantValue() as string
        ?? throw new LoKrException(
            ErrorIds.RuntimeVersionMismatch,
            LoKrErrorKind.NotSupported,
            $"This release of TorchSharp ({typeof(torch).Assembly.GetName().Version}) does not say which libtorch it was built for.",
            "Use the TorchSharp release that LoKr was built with.");
}
