using LoKr.Core.Errors;
using LoKr.Core.IO;

namespace LoKr.Core.Runtime;

/// <summary>
/// A folder in which runtimes are kept: <c>VERSION-FLAVOR/PLATFORM</c> for installed ones, <c>linked</c> for the CUDA packages of a source tree,
/// <c>patched</c> for copies of TorchSharp's library. Native code is loaded from it only if no other user can change it and every file is the one
/// that was put there.
/// </summary>
/// <param name="root">The folder; it need not exist. The folder above it, LOKR_HOME, belongs to the store too.</param>
/// <param name="forAllUsers">Whether every user may read it.</param>
internal sealed class RuntimeStore(string root, bool forAllUsers = false)
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
    private const UnixFileMode ReadableByAll = OwnerOnly | UnixFileMode.GroupRead | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;

    /// <summary>Full path.</summary>
    public string Root { get; } = Path.GetFullPath(root);

    /// <summary>Folder of an installed runtime.</summary>
    public string FolderFor(string libtorch, string flavor, string platform) => Path.Combine(Root, $"{libtorch}-{flavor}", platform);

    /// <summary>Folders of the installed runtimes of this platform, of whatever version.</summary>
    public IEnumerable<string> Installed() => !Directory.Exists(Root)
        ? []
        : Directory.EnumerateDirectories(Root).Order(StringComparer.Ordinal)
            .Select(version => Path.Combine(version, NativeNames.RuntimeIdentifier))
            .Where(folder => File.Exists(Path.Combine(folder, RuntimeManifest.FileName)));

    /// <summary>Whether a folder is in the store, wherever links lead.</summary>
    public bool Contains(string folder) => FolderPaths.Contains(FolderPaths.Resolve(Root), FolderPaths.Resolve(folder));

    /// <summary>Creates a folder of the store and those above it; those that are new are open to this user alone, or can be read by all.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeStoreUntrusted</c>, <c>LoKr.RuntimeStoreNotWritable</c>.</exception>
    public void CreateFolder(string folder)
    {
        RequireTrusted();
        try
        {
            string home = Path.GetDirectoryName(Root)!;
            Directory.CreateDirectory(Path.GetDirectoryName(home) ?? home);
            foreach (string path in Between(home, Path.GetFullPath(folder)).Reverse().Where(path => !Directory.Exists(path)))
            {
                if (OperatingSystem.IsWindows())
                {
                    Directory.CreateDirectory(path);
                }
                else
                {
                    // The mode is that of the last folder of a path alone.
                    Directory.CreateDirectory(path, forAllUsers ? ReadableByAll : OwnerOnly);
                }
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw NotWritable(folder, exception);
        }
    }

    /// <summary>The error for a folder of the store that cannot be written.</summary>
    public static LoKrException NotWritable(string folder, Exception exception) => new(
        ErrorIds.RuntimeStoreNotWritable,
        LoKrErrorKind.InputOutput,
        $"The runtime store '{folder}' cannot be written: {exception.Message}",
        "Check the permissions and the free space, or set LOKR_HOME to a folder that can be written.",
        exception)
    {
        Target = folder,
    };

    /// <summary>Refuses a store that other users can change: its folders, and where one is named, everything in that folder.</summary>
    /// <param name="path">A folder or file of the store; null for the store alone.</param>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeStoreUntrusted</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public void RequireTrusted(string? path = null)
    {
        string home = FolderPaths.Resolve(Path.GetDirectoryName(Root)!);
        string store = FolderPaths.Resolve(Root);
        string inner = FolderPaths.Resolve(path ?? Root);
        try
        {
            string? objection = FileTrust.ParentObjection(home) ?? FileTrust.ParentObjection(store)
                ?? Between(store, inner).Append(home).Concat(Entries(inner, store)).Where(Path.Exists).Select(FileTrust.Objection).FirstOrDefault(found => found is not null);
            if (objection is not null)
            {
                throw new LoKrException(
                    ErrorIds.RuntimeStoreUntrusted,
                    LoKrErrorKind.InvalidOperation,
                    $"Native code is not loaded from the runtime store '{Root}': {objection}, so another user can replace it.",
                    OperatingSystem.IsWindows() ? null : $"Take the write access away (chmod -R go-w '{home}', chown), or set LOKR_HOME to a folder of your own.")
                {
                    Target = Root,
                };
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotReadable(inner, exception);
        }
    }

    /// <summary>
    /// Refuses a folder of the store that other users can change, or whose files are not exactly those that were recorded. A file is hashed again
    /// only if it changed since the last time.
    /// </summary>
    /// <exception cref="LoKrException"><c>LoKr.RuntimeStoreUntrusted</c>, <c>LoKr.RuntimeDamaged</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public void Verify(string folder)
    {
        RequireTrusted(folder);
        RuntimeManifest manifest = RuntimeManifest.Find(folder) ?? throw Damaged(folder, $"'{folder}' has no record of what was installed ({RuntimeManifest.FileName})");
        IReadOnlyDictionary<string, FileHash> expected = manifest.Expected();
        if (RuntimeManifest.Libraries(folder).FirstOrDefault(file => !expected.ContainsKey(Path.GetFileName(file))) is string extra)
        {
            throw Damaged(extra, $"'{extra}' was not installed with the other files of its folder");
        }

        string stampsPath = Path.Combine(folder, RuntimeManifest.StampsName);
        HashSet<string> stamps = File.Exists(stampsPath) ? [.. FileSystem.ReadText(stampsPath).Split('\n')] : [];
        bool hashed = false;
        foreach ((string name, FileHash hash) in expected)
        {
            string path = Path.Combine(folder, name);
            if (!File.Exists(path))
            {
                throw Damaged(path, $"'{path}' is missing");
            }

            if (!stamps.Contains(Stamp(path, hash)))
            {
                FileHash actual = FileHash.Of(path);
                hashed = actual == hash ? true : throw Damaged(path, $"'{path}' is not the file that was published: its SHA-256 is {actual.Sha256}, not {hash.Sha256}");
            }
        }

        if (hashed)
        {
            RememberStamps(folder, expected);
        }
    }

    /// <summary>Records that the files of a folder were compared with these hashes, so that the next process does not do it again.</summary>
    public static void RememberStamps(string folder, IReadOnlyDictionary<string, FileHash> files)
    {
        string path = Path.Combine(folder, RuntimeManifest.StampsName);
        try
        {
            AtomicFile.WriteText(path, string.Join('\n', files.Select(file => Stamp(Path.Combine(folder, file.Key), file.Value))));
            FileTrust.Restrict(path);
        }
        catch (LoKrException exception) when (exception.ErrorId == ErrorIds.FileNotWritable)
        {
            // A store of all users, which this one can only read: its files are hashed again next time.
        }
    }

    private static string Stamp(string path, FileHash hash) => $"{hash.Sha256} {NativeFiles.ChangeStamp(path)} {Path.GetFileName(path)}";

    // The folders from one to another below it, both included.
    private static IEnumerable<string> Between(string outer, string inner)
    {
        for (string? path = inner; path is not null && FolderPaths.Contains(outer, path); path = Path.GetDirectoryName(path))
        {
            yield return path;
        }
    }

    // Links have no mode of their own; what they lead to is compared by its hash.
    private static IEnumerable<string> Entries(string folder, string store) => folder == store || !Directory.Exists(folder)
        ? []
        : new DirectoryInfo(folder).EnumerateFileSystemInfos().Where(entry => entry.LinkTarget is null).Select(entry => entry.FullName);

    private static LoKrException Damaged(string path, string problem) => new(
        ErrorIds.RuntimeDamaged,
        LoKrErrorKind.InvalidData,
        $"{problem}.",
        "Install the runtime again.")
    {
        Target = path,
    };
}
