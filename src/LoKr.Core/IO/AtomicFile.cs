using System.Text;
using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>Writes a file to a temporary name in the same folder, flushes it to the disk and renames it.</summary>
public static class AtomicFile
{
    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Writes a file through a stream; what was there before stays until the new content is complete.</summary>
    /// <param name="path">File to write; its folder has to exist.</param>
    /// <param name="write">Writes the content.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c> without the folder, <c>LoKr.FileNotWritable</c>.</exception>
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

        string temporary = Path.Combine(folder, $".{Path.GetFileName(full)}.{Guid.NewGuid():N}.tmp");
        try
        {
            using (FileStream stream = new(temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 16))
            {
                write(stream);
                stream.Flush(flushToDisk: true);
            }

            File.Move(temporary, full, overwrite: true);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(full, exception);
        }
        finally
        {
            // Gone after the rename; still there after any failure, whatever its kind.
            if (File.Exists(temporary))
            {
                File.Delete(temporary);
            }
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
