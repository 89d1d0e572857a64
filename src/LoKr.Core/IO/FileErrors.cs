using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>Errors with an id for what the file system refuses.</summary>
public static class FileErrors
{
    /// <summary>Whether an exception comes from the file system.</summary>
    /// <param name="exception">The exception.</param>
    public static bool IsFileSystem(Exception exception) =>
        exception is IOException or UnauthorizedAccessException or NotSupportedException or System.Security.SecurityException;

    /// <summary>Whether an exception says that a place may be read and not written.</summary>
    /// <param name="exception">The exception.</param>
    public static bool IsProtected(Exception exception) => exception is UnauthorizedAccessException
        || (exception is IOException && (OperatingSystem.IsWindows() ? (exception.HResult & 0xffff) is 0x13 : exception.HResult is 30));

    /// <summary>Whether an exception says that the disk, or the user's share of it, is full.</summary>
    /// <param name="exception">The exception.</param>
    public static bool IsDiskFull(Exception exception) => exception is IOException
        && (OperatingSystem.IsWindows() ? (exception.HResult & 0xffff) is 0x70 or 0x27 : exception.HResult is 28 or 122 or 69);

    /// <summary>Whether an exception says that somebody has a file open who does not share it.</summary>
    /// <param name="exception">The exception.</param>
    // ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION of Windows, EWOULDBLOCK of macOS.
    public static bool IsInUse(Exception exception) => exception is IOException
        && (OperatingSystem.IsWindows() ? (exception.HResult & 0xffff) is 0x20 or 0x21 : exception.HResult is 35);

    /// <summary>The error for a path that cannot be read: <c>LoKr.PathNotFound</c> or <c>LoKr.FileNotReadable</c>.</summary>
    /// <param name="path">The path.</param>
    /// <param name="exception">The cause.</param>
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

    /// <summary>The error for a path that cannot be written: <c>LoKr.DiskFull</c> or <c>LoKr.FileNotWritable</c>.</summary>
    /// <param name="path">The path.</param>
    /// <param name="exception">The cause.</param>
    public static LoKrException NotWritable(string path, Exception exception) => IsDiskFull(exception)
        ? new LoKrException(
            ErrorIds.DiskFull,
            LoKrErrorKind.InputOutput,
            $"The disk is full, so '{path}' cannot be written: {exception.Message}",
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

    /// <summary>The error for a path that does not exist: <c>LoKr.PathNotFound</c>.</summary>
    /// <param name="path">The path.</param>
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
}
