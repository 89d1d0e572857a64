using System.Globalization;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Xml.Linq;
using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runtime;

/// <summary>The package to install, its source, and its scope.</summary>
/// <param name="Flavor"><c>cpu</c> or <c>cuda</c>; null takes what the source is, or <c>cpu</c>.</param>
/// <param name="Source">
/// Address of a NuGet feed (the service index of version 3), name of a source in NuGet's configuration, folder of packages, package file, or folder of
/// an unpacked libtorch; null takes the sources of NuGet's configuration.
/// </param>
/// <param name="ForAllUsers">Into the store of the machine, in place of the user's.</param>
/// <param name="Force">Install again what is installed.</param>
public sealed record RuntimeInstallOptions(string? Flavor = null, string? Source = null, bool ForAllUsers = false, bool Force = false);

/// <summary>
/// Puts libtorch, and on platforms for which the module has none SkiaSharp's library, into the runtime store: downloaded, or without a network from
/// files that are there. Every file is compared with the published hash; the folder appears complete or not at all.
/// </summary>
public sealed class RuntimeInstaller
{
    private static readonly string[] s_platforms = ["linux-x64", "win-x64", "win-arm64", "osx-arm64"];

    private readonly RuntimeInstallOptions _options;
    private readonly RuntimeSearchPaths _paths;
    private readonly RuntimeStore _store;
    private readonly string? _unpacked;
    private readonly PackageSource? _packages;

    /// <summary>Plans an installation; nothing is written or downloaded.</summary>
    /// <param name="options">What to install.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.RuntimePackageNotFound</c> for a platform or source that is not known, <c>LoKr.RuntimeVersionMismatch</c> for an unpacked libtorch of
    /// another version, <c>LoKr.InvalidArgument</c>.
    /// </exception>
    public RuntimeInstaller(RuntimeInstallOptions options)
        : this(options, RuntimeSearchPaths.FromEnvironment())
    {
    }

    internal RuntimeInstaller(RuntimeInstallOptions options, RuntimeSearchPaths paths)
    {
        ArgumentNullException.ThrowIfNull(options);
        (_options, _paths, _store) = (options, paths, options.ForAllUsers ? paths.SharedStore : paths.UserStore);
        _unpacked = options.Source is string source && Directory.Exists(source) ? RuntimeLocator.FindLibtorch(source) : null;
        Flavor = _unpacked is null ? options.Flavor ?? "cpu" : NativeNames.Find(_unpacked, "torch_cuda") is null ? "cpu" : "cuda";
        if (_unpacked is not null)
        {
            CheckUnpacked(_unpacked);
        }
        else if (!s_platforms.Contains(Platform) || (Flavor == "cuda" && Platform is not ("linux-x64" or "win-x64")))
        {
            throw new LoKrException(
                ErrorIds.RuntimePackageNotFound, LoKrErrorKind.NotSupported, $"There is no package of libtorch {Libtorch} ({Flavor}) for {Platform}.",
                "Name the folder of a libtorch that was built for this platform.");
        }
        else
        {
            _packages = options.Source is null ? new ConfiguredPackageSource(null) : Open(options.Source);
        }
    }

    /// <summary>Version of libtorch that is installed.</summary>
    public string Libtorch => _paths.ExpectedLibtorch;

    /// <summary><c>cpu</c> or <c>cuda</c>.</summary>
    public string Flavor { get; }

    /// <summary>Runtime identifier of this platform.</summary>
    public string Platform { get; } = NativeNames.RuntimeIdentifier;

    /// <summary>Where it comes from, in words.</summary>
    public string Source => _unpacked ?? _packages!.Description;

    /// <summary>Folder that it is installed into.</summary>
    public string Folder => _store.FolderFor(Libtorch, Flavor, Platform);

    /// <summary>Whether it is installed already, so that <see cref="Install"/> has nothing to do.</summary>
    public bool IsInstalled => !_options.Force && Directory.Exists(Folder);

    /// <summary>Installs it, unless it is installed; what is installed is checked.</summary>
    /// <param name="progress">Gets every step; null for none.</param>
    /// <param name="token">Ends it; what was downloaded is kept for the next try.</param>
    /// <exception cref="LoKrException">
    /// <c>LoKr.RuntimePackageNotFound</c>, <c>LoKr.RuntimeDownloadFailed</c>, <c>LoKr.RuntimeDamaged</c>, <c>LoKr.RuntimeStoreUntrusted</c>,
    /// <c>LoKr.RuntimeStoreNotWritable</c>, <c>LoKr.DiskFull</c>, <c>LoKr.DestinationBusy</c> while another process installs it.
    /// </exception>
    public LoKrRuntimeInfo Install(Action<RuntimeInstallProgress>? progress = null, CancellationToken token = default)
    {
        Write(progress ?? (static _ => { }), token);
        return TorchRuntime.Find(new RuntimeOptions(Folder)) with { Source = _options.ForAllUsers ? "AllUsersStore" : "UserStore" };
    }

    /// <summary>Installs it without describing what was installed.</summary>
    internal void Write(Action<RuntimeInstallProgress> progress, CancellationToken token)
    {
        if (IsInstalled)
        {
            _store.Verify(Folder);
            return;
        }

        _store.CreateFolder(Path.GetDirectoryName(Folder)!);
        string downloads = Path.Combine(_store.Root, "downloads");
        using StagedDirectory staged = new(Folder, force: true, mark: RuntimeManifest.FileName);
        List<string> packages = [];
        Dictionary<string, FileHash> files = _unpacked is null
            ? Unpack(staged.Path, downloads, packages, progress, token)
            : CopyLibraries(_unpacked, staged.Path, progress, token);
        RuntimeManifest manifest = new(Libtorch, Flavor, Platform, Source, packages, files);
        manifest.Write(staged.Path);
        Restrict(staged.Path);
        staged.Commit();
        RuntimeStore.RememberStamps(Folder, files);
        if (Directory.Exists(downloads))
        {
            Contention.DeleteFolder(downloads);
        }
    }

    /// <summary>Removes an installed runtime.</summary>
    /// <param name="folder">Its folder.</param>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeNotFound</c> for a folder that is not one of the store, <c>LoKr.RuntimeStoreNotWritable</c>.</exception>
    public static void Uninstall(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        Uninstall(folder, RuntimeSearchPaths.FromEnvironment());
    }

    internal static void Uninstall(string folder, RuntimeSearchPaths paths)
    {
        RuntimeStore? store = Array.Find((RuntimeStore[])[paths.UserStore, paths.SharedStore], store => store.Contains(folder));
        if (store is null || !File.Exists(Path.Combine(folder, RuntimeManifest.FileName)))
        {
            throw new LoKrException(ErrorIds.RuntimeNotFound, LoKrErrorKind.NotFound, $"'{folder}' is not a runtime that was installed.", "Only installed runtimes are removed.") { Target = folder };
        }

        try
        {
            Contention.RemoveFolder(Path.GetFullPath(folder));
            if (Path.GetDirectoryName(Path.GetFullPath(folder)) is string parent && !Directory.EnumerateFileSystemEntries(parent).Any())
            {
                Contention.DeleteEmptyFolder(parent);
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw RuntimeStore.NotWritable(folder, exception);
        }
    }

    private void CheckUnpacked(string folder)
    {
        if (_options.Flavor is string asked && asked != Flavor)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"The libtorch in '{folder}' is for {Flavor}, not {asked}.", "Name the folder of the other one.") { Target = folder };
        }

        if (LibtorchVersion.Detect(folder) is not string version || RuntimeSearchPaths.ThreeParts(version) != Libtorch)
        {
            throw RuntimeLocator.WrongVersion(folder, LibtorchVersion.Detect(folder), _paths);
        }
    }

    private static PackageSource Open(string source) =>
        Directory.Exists(source) ? new FolderPackageSource(source)
        : File.Exists(source) ? new FilePackageSource(source)
        : Uri.TryCreate(source, UriKind.Absolute, out Uri? address) && address.Scheme is "http" or "https" ? new FeedPackageSource(address!)
        : new ConfiguredPackageSource(source);

    private Dictionary<string, FileHash> Unpack(string target, string downloads, List<string> names, Action<RuntimeInstallProgress> progress, CancellationToken token)
    {
        _store.CreateFolder(downloads);
        List<string> files = [];
        try
        {
            Fetch(downloads, names, files, progress, token);
            using PackageContent content = new(files, names, Platform);
            return content.Write(target, progress, token);
        }
        catch (LoKrException exception) when (exception.ErrorId == ErrorIds.RuntimeDamaged)
        {
            // A damaged download would be found complete by the next try.
            foreach (string file in files.Where(file => Path.GetDirectoryName(file) == downloads))
            {
                Contention.DeleteFile(file);
            }

            throw;
        }
    }

    private void Fetch(string downloads, List<string> names, List<string> files, Action<RuntimeInstallProgress> progress, CancellationToken token)
    {
        Queue<(string Id, string Version)> wanted = new(Flavor == "cpu"
            ? KnownPackages.For(Platform)
            : [($"libtorch-cuda-{CudaVersion()}-{Platform}", Libtorch), .. KnownPackages.For(Platform).Where(package => !package.Id.StartsWith("libtorch-", StringComparison.Ordinal))]);
        HashSet<string> seen = new(wanted.Select(package => package.Id), StringComparer.OrdinalIgnoreCase);
        while (wanted.TryDequeue(out (string Id, string Version) package))
        {
            string name = $"{package.Id} {package.Version}";
            string file = _packages!.Fetch(package.Id, package.Version, downloads, (done, total) => progress(new("Downloading", name, done, total)), token)
                ?? throw new LoKrException(
                    ErrorIds.RuntimePackageNotFound, LoKrErrorKind.NotFound, $"The package {name} is not in {Source}.",
                    $"Put {package.Id}.{package.Version}.nupkg there, or name another source.")
                {
                    Target = package.Id,
                };
            names.Add($"{package.Id}/{package.Version}");
            files.Add(file);
            foreach ((string id, string version) in PackageContent.Dependencies(file).Where(dependency => dependency.Id.StartsWith("libtorch-", StringComparison.OrdinalIgnoreCase) && seen.Add(dependency.Id)))
            {
                wanted.Enqueue((id.ToLowerInvariant(), version));
            }
        }
    }

    private static Dictionary<string, FileHash> CopyLibraries(string folder, string target, Action<RuntimeInstallProgress> progress, CancellationToken token)
    {
        FileInfo[] files = [.. new DirectoryInfo(folder).EnumerateFiles().Where(file => file.Name.Contains(".so", StringComparison.Ordinal) || file.Extension is ".dll" or ".dylib")];
        (long done, long total) = (0, files.Sum(file => file.Length));
        Dictionary<string, FileHash> hashes = new(StringComparer.Ordinal);
        foreach (FileInfo file in files)
        {
            using FileStream content = FileSystem.OpenRead(file.FullName);
            hashes[file.Name] = HashedCopy.Write(Path.Combine(target, file.Name), [content], count => progress(new("Copying", file.Name, done += count, total)), token);
        }

        return hashes;
    }

    private static void Restrict(string folder)
    {
        foreach (string file in Directory.EnumerateFiles(folder).Append(folder))
        {
            FileTrust.Restrict(file);
        }
    }

    private static string CudaVersion() => RuntimeSearchPaths.Constant("cudaVersion");
}

/// <summary>The native libraries of packages, with files put together that are cut into parts over several packages.</summary>
internal sealed class PackageContent : IDisposable
{
    private readonly List<(string Package, ZipArchive Zip)> _packages = [];
    private readonly string _platform;

    /// <summary>Opens package files.</summary>
    /// <param name="files">The files.</param>
    /// <param name="names">Id/version of each.</param>
    /// <param name="platform">Runtime identifier.</param>
    public PackageContent(IReadOnlyList<string> files, IReadOnlyList<string> names, string platform)
    {
        _platform = platform;
        foreach ((string file, string name) in files.Zip(names))
        {
            _packages.Add((name, PackageHash.Open(file)));
        }
    }

    /// <summary>The packages that a package needs, with exact versions.</summary>
    public static IReadOnlyList<(string Id, string Version)> Dependencies(string file)
    {
        using ZipArchive zip = PackageHash.Open(file);
        ZipArchiveEntry nuspec = zip.Entries.FirstOrDefault(entry => entry.FullName.EndsWith(".nuspec", StringComparison.OrdinalIgnoreCase) && !entry.FullName.Contains('/', StringComparison.Ordinal))
            ?? throw PackageHash.Damaged(file, $"'{file}' has no nuspec");
        using Stream stream = nuspec.Open();
        try
        {
            return [.. XDocument.Load(stream).Descendants()
                .Where(element => element.Name.LocalName == "dependency" && element.Attribute("id") is not null && element.Attribute("version") is not null)
                .Select(element => (element.Attribute("id")!.Value, element.Attribute("version")!.Value.Trim('[', ']', '(', ')', ' ').Split(',')[0])).Distinct()];
        }
        catch (Exception exception) when (exception is System.Xml.XmlException or InvalidDataException)
        {
            throw PackageHash.Damaged(file, $"The nuspec of '{file}' cannot be read", exception);
        }
    }

    /// <summary>Writes the libraries of the platform into a folder and compares each with its published hash.</summary>
    /// <returns>Names and hashes.</returns>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeDamaged</c>, <c>LoKr.DiskFull</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public Dictionary<string, FileHash> Write(string target, Action<RuntimeInstallProgress> progress, CancellationToken token)
    {
        Dictionary<string, (string Package, ZipArchiveEntry Entry)> entries = new(StringComparer.Ordinal);
        foreach ((string package, ZipArchive zip) in _packages)
        {
            foreach (ZipArchiveEntry entry in zip.Entries.Where(entry => IsLibrary(entry.FullName)))
            {
                entries.TryAdd(entry.Name, (package, entry));
            }

            CheckComplete(package, zip);
        }

        (long done, long total) = (0, entries.Where(entry => !IsSum(entry.Key)).Sum(entry => entry.Value.Entry.Length));
        Dictionary<string, FileHash> hashes = new(StringComparer.Ordinal);
        foreach ((string name, (string package, ZipArchiveEntry entry)) in entries.Where(entry => !IsSum(entry.Key) && !IsFragment(entry.Key)))
        {
            List<ZipArchiveEntry> parts = [entry];
            while (entries.TryGetValue($"{name}.fragment{parts.Count}", out (string, ZipArchiveEntry Entry) next))
            {
                parts.Add(next.Entry);
            }

            FileHash hash = WriteOne(Path.Combine(target, name), parts, count => progress(new("Unpacking", name, done += count, total)), token);
            Check(package, entry, hash, entries.TryGetValue($"{name}.sha", out (string, ZipArchiveEntry Entry) sum) ? sum.Entry : null);
            hashes[name] = hash;
        }

        return hashes;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach ((_, ZipArchive zip) in _packages)
        {
            zip.Dispose();
        }
    }

    private static FileHash WriteOne(string path, List<ZipArchiveEntry> parts, Action<long> progress, CancellationToken token)
    {
        try
        {
            return HashedCopy.Write(path, parts.Select(part => part.Open()), progress, token);
        }
        catch (InvalidDataException exception)
        {
            throw PackageHash.Damaged(path, $"The package with '{Path.GetFileName(path)}' is damaged: {exception.Message.TrimEnd('.')}", exception);
        }
    }

    // A library that a known package should have and has not would be missed only when it is loaded.
    private static void CheckComplete(string package, ZipArchive zip)
    {
        if (KnownPackages.Find(package)?.Keys.FirstOrDefault(path => zip.GetEntry(path) is null) is string missing)
        {
            throw PackageHash.Damaged(package, $"The package {package} has no {missing}");
        }
    }

    private static void Check(string package, ZipArchiveEntry entry, FileHash hash, ZipArchiveEntry? sum)
    {
        if (KnownPackages.Find(package) is { } known)
        {
            if (known.GetValueOrDefault(entry.FullName) != hash)
            {
                throw PackageHash.Damaged(package, $"{entry.FullName} of the package {package} is not the file that was published: its SHA-256 is {hash.Sha256}");
            }
        }
        else if (sum is not null)
        {
            using StreamReader reader = new(sum.Open());
            string stated = reader.ReadToEnd().Trim();
            if (!string.Equals(stated, hash.Sha256, StringComparison.OrdinalIgnoreCase))
            {
                throw PackageHash.Damaged(package, $"{entry.Name}, joined from its packages, has the checksum {hash.Sha256}, not {stated}");
            }
        }
    }

    // The name becomes that of a file.
    private bool IsLibrary(string path) => KnownPackages.IsFor(path, _platform)
        && path[(path.LastIndexOf('/') + 1)..] is var name && name == Path.GetFileName(name) && name is not (RuntimeManifest.FileName or RuntimeManifest.StampsName or "." or "..");

    private static bool IsSum(string name) => name.EndsWith(".sha", StringComparison.Ordinal);

    private static bool IsFragment(string name) => name.LastIndexOf(".fragment", StringComparison.Ordinal) is > 0 and var at && int.TryParse(name.AsSpan(at + ".fragment".Length), NumberStyles.None, CultureInfo.InvariantCulture, out _);
}

/// <summary>Copies a file and hashes it on the way.</summary>
internal static class HashedCopy
{
    /// <summary>Writes streams one after the other into a new file; each is disposed.</summary>
    /// <exception cref="LoKrException"><c>LoKr.DiskFull</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public static FileHash Write(string path, IEnumerable<Stream> parts, Action<long> progress, CancellationToken token)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[1 << 20];
        long length = 0;
        try
        {
            using FileStream target = new(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, 0);
            foreach (Stream part in parts)
            {
                using (part)
                {
                    for (int count; (count = part.Read(buffer)) > 0;)
                    {
                        token.ThrowIfCancellationRequested();
                        hash.AppendData(buffer, 0, count);
                        target.Write(buffer, 0, count);
                        length += count;
                        progress(count);
                    }
                }
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(path, exception);
        }

        return new(length, Convert.ToHexStringLower(hash.GetHashAndReset()));
    }
}
