using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>Turns what the file system refuses into errors with an id.</summary>
internal static class FileErrors
{
    /// <summary>Whether an exception comes from the file system.</summary>
    public static bool IsFileSystem(Exception exception) =>
        exception is IOException or UnauthorizedAccessException or NotSupportedException or System.Security.SecurityException;

    /// <summary>Whether an exception says that the disk, or the user's share of it, is full.</summary>
    public static bool IsDiskFull(Exception exception) => exception is IOException
        && (OperatingSystem.IsWindows() ? (exception.HResult & 0xffff) is 0x70 or 0x27 : exception.HResult is 28 or 122 or 69);

    /// <summary>The error for a path that cannot be read.</summary>
    public static LoKrException NotReadable(string path, Exception exception) => exception is FileNotFoundException or DirectoryNotFoundException
        ? NotFound(path)
        : new LoKrException(
            ErrorIds.FileNotReadable,
            LoKrErrorKind.InputOutput,
            $"'{path}' cannot be read: {exception.Message}",
            "Check the permissions, and that no other program keeps it locked.",
            exception)
        {
            Target = path,
        };

    /// <summary>The error for a path that cannot be written.</summary>
    public static LoKrException NotWritable(string path, Exception exception) => IsDiskFull(exception)
        ? new LoKrException(
            ErrorIds.DiskFull,
            LoKrErrorKind.InputOutput,
            $"There is no room on the disk for '{path}': {exception.Message}",
            "Free some space, or write to another disk. Nothing that was there before has changed.",
            exception)
        {
            Target = path,
        }
        : new LoKrException(
        ErrorIds.FileNotWritable,
        LoKrErrorKind.InputOutput,
        $"'{path}' cannot be written: {exception.Message}",
        "Check the permissions and the free space. Nothing that was there before has changed.",
        exception)
    {
        Target = path,
    };

    /// <summary>The error for a path that does not exist.</summary>
    public static LoKrException NotFound(string path) => new(
        ErrorIds.PathNotFound,
        LoKrErrorKind.NotFound,
        $"'{path}' does not exist.")
    {
        Target = path,
    };

    /// <summary>The error for a destination that exists.</summary>
    /// <param name="path">The destination.</param>
    /// <param name="message">The message; null for one that names the destination.</param>
    /// <param name="advice">The advice; null for the usual one.</param>
    public static LoKrException Exists(string path, string? message = null, string? advice = null) => new(
        ErrorIds.DestinationExists,
        LoKrErrorKind.AlreadyExists,
        message ?? $"'{path}' exists.",
        advice ?? "Allow overwriting, or choose another destination.")
    {
        Target = path,
    };

    /// <summary>Refuses a destination that exists, unless it may be replaced.</summary>
    /// <param name="path">The destination.</param>
    /// <param name="force">Whether it may be replaced.</param>
    public static void CheckReplaceable(string path, bool force)
    {
        if (!force && Path.Exists(path))
        {
            throw Exists(path);
        }
    }

    /// <summary>Makes a folder, and those above it, where it is not there.</summary>
    public static void CreateFolder(string folder)
    {
        try
        {
            Directory.CreateDirectory(folder);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(folder, exception);
        }
    }

    /// <summary>Opens a file for reading; others may read it too.</summary>
    public static FileStream OpenRead(string path)
    {
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
        }
        catch (Exception exception) when (IsFileSystem(exception))
        {
            throw NotReadable(path, exception);
        }
    }

    /// <summary>Reads a whole file.</summary>
    public static byte[] ReadBytes(string path)
    {
        try
        {
            return File.ReadAllBytes(path);
        }
        catch (Exception exception) when (IsFileSystem(exception))
        {
            throw NotReadable(path, exception);
        }
    }

    /// <summary>Reads a whole text file.</summary>
    public static string ReadText(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception exception) when (IsFileSystem(exception))
        {
            throw NotReadable(path, exception);
        }
    }
}

/// <summary>How folders lie to each other, links followed.</summary>
public static class FolderPaths
{
    /// <summary>Refuses a destination that is, lies in or contains a folder that is read: a folder is replaced as a whole, and what else lies there would be lost.</summary>
    /// <param name="source">Folder that is read.</param>
    /// <param name="destination">Folder to write.</param>
    /// <exception cref="LoKrException"><c>LoKr.ExportIntoSource</c>.</exception>
    public static void CheckApart(string source, string destination)
    {
        string from = Real(source);
        string to = Real(destination);
        if (Contains(from, to) || Contains(to, from))
        {
            throw new LoKrException(ErrorIds.ExportIntoSource, LoKrErrorKind.InvalidArgument,
                $"'{destination}' is, lies in or contains the folder that is read, '{source}'.", "Name a folder apart from it.") { Target = destination };
        }
    }

    private static string Real(string path)
    {
        string full = Path.TrimEndingDirectorySeparator(Path.GetFullPath(path));
        return Directory.Exists(full) ? new DirectoryInfo(full).ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? full : full;
    }

    private static bool Contains(string outer, string inner)
    {
        string relative = Path.GetRelativePath(outer, inner);
        return relative == "." || (!Path.IsPathRooted(relative) && relative.Split(Path.DirectorySeparatorChar)[0] != "..");
    }
}
