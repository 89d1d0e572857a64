using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// The folder that is at a path now. Writers swap whole folders in one step (<see cref="StagedDirectory"/>), so that a reader of several files
/// must see that all of them are of one folder: the configuration of one version with the weights of another would be neither.
/// </summary>
public readonly record struct FolderVersion
{
    // A folder that changes during each of so many reads is not the work of writers that take longer than a read.
    private const int MaxReads = 20;

    private readonly FileIdentity _identity;
    private readonly DateTime _written;

    private FolderVersion(FileIdentity identity, DateTime written) => (_identity, _written) = (identity, written);

    /// <summary>The version that is there now, links followed; equal to a later one if nothing was swapped, added, renamed or removed in between.</summary>
    /// <param name="folder">A folder, which may be missing.</param>
    public static FolderVersion Of(string folder)
    {
        string real = FolderPaths.Resolve(folder);
        try
        {
            return !Directory.Exists(real) ? default
                : OperatingSystem.IsLinux() ? new(NativeFiles.Identify(real), default)
                : new(default, new DirectoryInfo(real).LastWriteTimeUtc);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            // Swapped away between the two questions.
            return default;
        }
    }

    /// <summary>Whether another folder is at the path now; on systems that do not tell folders apart, never.</summary>
    /// <param name="now">The version that is there now.</param>
    public bool WasReplaced(FolderVersion now) =>
        (_identity.DeviceMajor, _identity.DeviceMinor, _identity.Inode) != (now._identity.DeviceMajor, now._identity.DeviceMinor, now._identity.Inode);

    /// <summary>Opens or reads several files of a folder, again where the folder was swapped meanwhile.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="read">Opens or reads the files. Files that are open stay those of their version.</param>
    /// <param name="discard">Closes what was read of two versions.</param>
    /// <exception cref="LoKrException">Those of <paramref name="read"/>; <c>LoKr.FileNotReadable</c> for a folder that never stays the same.</exception>
    public static T Read<T>(string folder, Func<T> read, Action<T> discard)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        ArgumentNullException.ThrowIfNull(read);
        ArgumentNullException.ThrowIfNull(discard);
        for (int i = 0; i < MaxReads; i++)
        {
            FolderVersion before = Of(folder);
            T result;
            try
            {
                result = read();
            }
            catch (LoKrException) when (Of(folder) != before)
            {
                continue;
            }

            if (Of(folder) == before)
            {
                return result;
            }

            discard(result);
        }

        throw FileErrors.NotReadable(folder, new IOException("It is replaced or changed all the time."));
    }
}
