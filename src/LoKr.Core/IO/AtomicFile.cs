using System.Text;
using LoKr.Core.Errors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.IO;

/// <summary>Writes files that appear complete or not at all; what was there before stays until the new content is on the disk.</summary>
public static class AtomicFile
{
    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Writes a file through a stream.</summary>
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

        try
        {
            using PendingFile file = new(full, TemporaryName.Beside(full, "tmp"));
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
}

/// <summary>
/// A file that is written under a temporary name and renamed by <see cref="Commit"/>. Disposing without a commit removes it.
/// Failures are the exceptions of the file system.
/// </summary>
internal sealed class PendingFile : IDisposable
{
    private readonly string _path;
    private readonly string _temporary;
    private bool _committed;

    /// <summary>Creates the temporary file, or empties one that an interrupted process left.</summary>
    /// <param name="path">Final path.</param>
    /// <param name="temporary">Path on the same volume until then.</param>
    public PendingFile(string path, string temporary)
    {
        (_path, _temporary) = (path, temporary);
        Handle = File.OpenHandle(temporary, FileMode.Create, FileAccess.Write, FileShare.None);
    }

    /// <summary>Handle to write with.</summary>
    public SafeFileHandle Handle { get; }

    /// <summary>Flushes the content to the disk and renames the file.</summary>
    public void Commit()
    {
        RandomAccess.FlushToDisk(Handle);
        Handle.Dispose();
        File.Move(_temporary, _path, overwrite: true);
        _committed = true;
    }

    /// <summary>Closes the file, and removes it unless it was renamed.</summary>
    public void Dispose()
    {
        Handle.Dispose();
        if (!_committed)
        {
            File.Delete(_temporary);
        }
    }
}

/// <summary>Names of files and folders that are being written or removed: hidden, unique, and beside their destination.</summary>
internal static class TemporaryName
{
    /// <summary>A path on the volume of another one.</summary>
    /// <param name="path">Full path of the destination.</param>
    /// <param name="suffix">Extension.</param>
    public static string Beside(string path, string suffix) =>
        Path.Combine(Path.GetDirectoryName(path)!, $".{Path.GetFileName(path)}.{Guid.NewGuid():N}.{suffix}");
}
