using System.Text;
using LoKr.Core.Errors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.IO;

/// <summary>Writes files that appear complete or not at all; what was there before stays until the new content is on the disk.</summary>
public static class AtomicFile
{
    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    // A writer creates its file a moment before it locks it.
    private static readonly TimeSpan s_abandonedAge = TimeSpan.FromMinutes(1);

    /// <summary>Writes a file through a stream, and removes before what killed writers of the same file left.</summary>
    /// <param name="path">File to write; its folder has to exist.</param>
    /// <param name="write">Writes the content.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c> without the folder, <c>LoKr.FileNotWritable</c>, <c>LoKr.DiskFull</c>.</exception>
    public static void Write(string path, Action<FileStream> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(write);
        string full = Path.GetFullPath(path);
        string folder = Path.GetDirectoryName(full) ?? full;
        if (!Directory.Exists(folder))
        {
            throw FileErrors.NotFound(folder);
        }

        RemoveLeftovers(full);
        try
        {
            using PendingFile file = new(full, TemporaryName.Beside(full, TemporaryName.Suffix));
            using (FileStream stream = new(file.Handle, FileAccess.Write, 1 << 16))
            {
                write(stream);
                stream.Flush();
                file.Commit();
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(full, exception);
        }
    }

    /// <summary>Writes UTF-8 text without a byte order mark.</summary>
    /// <inheritdoc cref="Write"/>
    /// <param name="path">File to write; its folder has to exist.</param>
    /// <param name="text">The content.</param>
    public static void WriteText(string path, string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        byte[] bytes = s_utf8.GetBytes(text);
        Write(path, stream => stream.Write(bytes));
    }

    /// <summary>
    /// Removes the unfinished files that killed writers of the same file left: those that nobody has open, and that are not new.
    /// </summary>
    /// <param name="path">File to write; its folder has to exist.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>.</exception>
    internal static void RemoveLeftovers(string path) => RemoveLeftovers([path], IsAbandoned);

    /// <summary>Removes the unfinished files that killed writers left of files that nobody but the caller may write now, however new they are.</summary>
    /// <param name="paths">Files of one folder, which has to exist.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>.</exception>
    internal static void RemoveLeftoversOfOwn(params string[] paths) => RemoveLeftovers(paths, static _ => true);

    private static void RemoveLeftovers(string[] paths, Func<string, bool> isLeft)
    {
        string[] full = [.. paths.Select(Path.GetFullPath)];
        try
        {
            foreach (string file in Directory.EnumerateFiles(Path.GetDirectoryName(full[0])!, ".*").Where(file => full.Any(path => TemporaryName.IsBeside(file, path, TemporaryName.Suffix)) && isLeft(file)).ToArray())
            {
                Contention.DeleteFile(file);
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(full[0], exception);
        }
    }

    private static bool IsAbandoned(string path)
    {
        FileInfo file = new(path);
        if (file.LinkTarget is not null || DateTime.UtcNow - file.LastWriteTimeUtc < s_abandonedAge)
        {
            return false;
        }

        try
        {
            using SafeFileHandle handle = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None);
            return true;
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            // A live writer has it open, or it is another user's, or it is gone.
            return false;
        }
    }
}

/// <summary>
/// A file that is written under a temporary name and renamed by <see cref="Commit"/>. Disposing without a commit removes it.
/// Failures are the exceptions of the file system.
/// </summary>
internal sealed class PendingFile : IDisposable
{
    private readonly string _path;
    private readonly string _temporary;
    private readonly FileStream _stream;
    private readonly bool _resumes;
    private bool _committed;

    /// <summary>Creates the temporary file; one that exists, or a link of that name, is an error. It has the mode of the file that it replaces.</summary>
    /// <param name="path">Final path.</param>
    /// <param name="temporary">Path on the same volume until then.</param>
    /// <param name="resumes">Whether a file that an earlier writer left is opened, and left again where it is not finished.</param>
    public PendingFile(string path, string temporary, bool resumes = false)
    {
        (_path, _temporary, _resumes) = (path, temporary, resumes);
        FileStreamOptions options = new() { Mode = resumes ? FileMode.OpenOrCreate : FileMode.CreateNew, Access = FileAccess.ReadWrite, Share = FileShare.None, BufferSize = 0 };
        bool replaces = File.Exists(path);
        if (replaces && !OperatingSystem.IsWindows())
        {
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        }

        _stream = new FileStream(temporary, options);
        Handle = _stream.SafeFileHandle;
        if (!replaces)
        {
            return;
        }

        try
        {
            NativeFiles.CopyAccess(path, temporary);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Handle to write with.</summary>
    public SafeFileHandle Handle { get; }

    /// <summary>Flushes the content to the disk, renames the file, and flushes its new name.</summary>
    public void Commit()
    {
        RandomAccess.FlushToDisk(Handle);

        // A reader must not meet the lock under the final name. Until it has that name its age tells that no killed writer left it.
        File.SetLastWriteTimeUtc(Handle, DateTime.UtcNow);
        _stream.Dispose();
        Contention.MoveFile(_temporary, _path);
        _committed = true;
        NativeFiles.FlushFolder(Path.GetDirectoryName(_path)!);
    }

    /// <summary>Closes the file, and removes it unless it was renamed or is left for a later writer.</summary>
    public void Dispose()
    {
        _stream.Dispose();
        if (!_committed && !_resumes)
        {
            Contention.DeleteFile(_temporary);
        }
    }
}

/// <summary>Names of files and folders that are being written or removed: hidden, beside their destination, and never longer than a name may be.</summary>
internal static class TemporaryName
{
    /// <summary>Extension of what is incomplete: it is being written or removed.</summary>
    public const string Suffix = "tmp";

    // File systems allow 255 bytes; a dot before the name and ".GUID.tmp" after it have to fit too.
    private const int MaxNameBytes = 255 - 1 - 37;

    /// <summary>A path on the volume of another one that no other process uses.</summary>
    /// <param name="path">Full path of the destination.</param>
    /// <param name="suffix">Extension of three letters.</param>
    public static string Beside(string path, string suffix) => Of(path, $"{Guid.NewGuid():N}.{suffix}");

    /// <summary>The path on the volume of another one that every process uses for a purpose.</summary>
    /// <param name="path">Full path of the destination.</param>
    /// <param name="purpose">The purpose, at most 36 bytes.</param>
    public static string Of(string path, string purpose) => Path.Combine(Path.GetDirectoryName(path)!, $".{Shorten(Path.GetFileName(path))}.{purpose}");

    /// <summary>Whether a path is one that <see cref="Beside"/> made.</summary>
    /// <param name="path">Path in the folder of the destination.</param>
    /// <param name="destination">Full path of the destination.</param>
    /// <param name="suffix">Extension.</param>
    public static bool IsBeside(string path, string destination, string suffix)
    {
        string name = Path.GetFileName(path);
        string start = $".{Shorten(Path.GetFileName(destination))}.";
        return name.Length == start.Length + 32 + 1 + suffix.Length
            && name.StartsWith(start, StringComparison.Ordinal)
            && name.EndsWith("." + suffix, StringComparison.Ordinal)
            && Guid.TryParseExact(name.AsSpan(start.Length, 32), "N", out _);
    }

    // A name that is cut ends with a hash, so that two names with the same beginning stay apart.
    private static string Shorten(string name)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name);
        if (bytes.Length <= MaxNameBytes)
        {
            return name;
        }

        string hash = "~" + ContentHash.Of(bytes)[..16];
        int room = MaxNameBytes - hash.Length;
        StringBuilder kept = new();
        foreach (Rune rune in name.EnumerateRunes())
        {
            room -= rune.Utf8SequenceLength;
            if (room < 0)
            {
                break;
            }

            kept.Append(rune.ToString());
        }

        return kept.Append(hash).ToString();
    }
}
