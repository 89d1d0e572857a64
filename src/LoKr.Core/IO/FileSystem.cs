using System.Diagnostics;
using System.Formats.Tar;
using System.Globalization;
using System.Text;
using LoKr.Core.Errors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.IO;

/// <summary>Operations of the file system whose failures are errors with an id.</summary>
public static class FileSystem
{
    /// <summary>Refuses a destination that exists, unless it may be replaced.</summary>
    /// <param name="path">The destination.</param>
    /// <param name="force">Whether it may be replaced.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c>.</exception>
    public static void CheckReplaceable(string path, bool force)
    {
        if (!force && Path.Exists(path))
        {
            throw FileErrors.Exists(path);
        }
    }

    /// <summary>Creates a folder and those above it; one that exists is left as it is.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>, <c>LoKr.DiskFull</c>.</exception>
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

    /// <summary>Refuses to start what a disk has no room for.</summary>
    /// <param name="folder">Existing folder on the disk.</param>
    /// <param name="destination">What is to be written, for the message.</param>
    /// <param name="bytes">Bytes that it needs.</param>
    /// <exception cref="LoKrException"><c>LoKr.DiskFull</c>.</exception>
    internal static void RequireSpace(string folder, string destination, long bytes)
    {
        long free = new DriveInfo(OperatingSystem.IsWindows() ? Path.GetPathRoot(folder)! : folder).AvailableFreeSpace;
        if (free < bytes)
        {
            throw new LoKrException(ErrorIds.DiskFull, LoKrErrorKind.InputOutput,
                string.Create(CultureInfo.InvariantCulture, $"'{destination}' needs {bytes:N0} bytes, but its disk has {free:N0} free."),
                "Free some space, or write to another disk. Existing files are unchanged.") { Target = destination };
        }
    }

    /// <summary>Opens a file for reading; others may read it too, and give its name to another file.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>.</exception>
    public static FileStream OpenRead(string path) => Reading(path, static path => new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete));

    /// <summary>Opens a file of which parts are read in any order, and reads its header.</summary>
    /// <param name="path">Full path of a regular file.</param>
    /// <param name="create">Makes the reader, which owns the handle then.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotReadable</c>, and what the header's reader throws.</exception>
    internal static T OpenParts<T>(string path, Func<SafeFileHandle, T> create)
    {
        SafeFileHandle? handle = null;
        try
        {
            handle = Contention.Wait(() => File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, FileOptions.RandomAccess));
            return create(handle);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            handle?.Dispose();
            throw FileErrors.NotReadable(path, exception);
        }
        catch
        {
            handle?.Dispose();
            throw;
        }
    }

    /// <summary>Reads a whole file, also one to which its writer adds, such as the log of a run.</summary>
    /// <inheritdoc cref="OpenRead"/>
    public static byte[] ReadBytes(string path) => Reading(path, static path =>
    {
        using FileStream stream = OpenGrowing(path);
        if (stream.Length > Array.MaxLength)
        {
            throw new IOException("It is longer than 2 GB.");
        }

        byte[] bytes = new byte[stream.Length];
        int count = stream.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
        return count == bytes.Length ? bytes : bytes[..count];
    });

    /// <summary>Reads a whole text file, also one to which its writer adds.</summary>
    /// <inheritdoc cref="OpenRead"/>
    public static string ReadText(string path) => Reading(path, static path =>
    {
        using StreamReader reader = new(OpenGrowing(path), Encoding.UTF8, detectEncodingFromByteOrderMarks: true, bufferSize: 1 << 16);
        return reader.ReadToEnd();
    });

    /// <summary>Copies the content of a file but not its permissions: the copy of a read-only file can be written.</summary>
    /// <param name="source">File to copy.</param>
    /// <param name="destination">File to write or replace; missing folders are created.</param>
    /// <exception cref="LoKrException"><c>LoKr.PathNotFound</c>, <c>LoKr.FileNotReadable</c>, <c>LoKr.FileNotWritable</c>, <c>LoKr.DiskFull</c>.</exception>
    public static void CopyContent(string source, string destination)
    {
        CreateFolder(Path.GetDirectoryName(Path.GetFullPath(destination))!);
        using FileStream content = OpenRead(source);
        AtomicFile.Write(destination, content.CopyTo);
    }

    /// <summary>Refuses pipes, sockets and devices: opening a pipe may block forever, and reading a device may never end.</summary>
    /// <param name="path">The path; one that does not exist is left to its reader.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotReadable</c>.</exception>
    internal static void CheckRegular(string path)
    {
        try
        {
            // All of them have a length of 0; only then is the kind worth the price of asking.
            FileInfo file = new(path);
            file = file.LinkTarget is null ? file : (file.ResolveLinkTarget(returnFinalTarget: true) as FileInfo) ?? file;
            if (!OperatingSystem.IsWindows() && file is { Exists: true, Length: 0 } && !IsRegular(file.FullName))
            {
                throw new IOException("It is a pipe, a socket or a device, not a file.");
            }
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotReadable(path, exception);
        }
    }

    // .NET tells the kind of a file without opening it only where it archives it.
    private static bool IsRegular(string path)
    {
        using MemoryStream archive = new();
        using (TarWriter writer = new(archive, leaveOpen: true))
        {
            writer.WriteEntry(path, "file");
        }

        archive.Position = 0;
        using TarReader reader = new(archive);
        return reader.GetNextEntry()?.EntryType is TarEntryType.RegularFile or TarEntryType.V7RegularFile;
    }

    private static FileStream OpenGrowing(string path) => new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);

    private static T Reading<T>(string path, Func<string, T> read)
    {
        CheckRegular(path);
        try
        {
            return Contention.Wait(() => read(path));
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotReadable(path, exception);
        }
    }
}

/// <summary>
/// Patience with files that others have open. Windows refuses to replace, move, remove or open what somebody has open who does not share it, and
/// readers, virus scanners and indexers have files open for moments: such a step is tried again for two seconds. Other systems do not refuse it.
/// </summary>
internal static class Contention
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(2);

    /// <summary>Opens or reads a file.</summary>
    public static T Wait<T>(Func<T> action) => Wait(action, FileErrors.IsInUse);

    /// <summary>Gives a file another name on its volume; a file of that name is replaced.</summary>
    public static void MoveFile(string source, string destination) => Wait(() => File.Move(source, destination, overwrite: true));

    /// <summary>Gives a folder another name on its volume.</summary>
    public static void MoveFolder(string source, string destination) => Wait(() => Directory.Move(source, destination));

    /// <summary>Removes a file, where there is one.</summary>
    public static void DeleteFile(string path) => Wait(() => File.Delete(path));

    /// <summary>Removes a folder and what is in it.</summary>
    public static void DeleteFolder(string folder) => Wait(() => Directory.Delete(folder, recursive: true));

    /// <summary>Removes a folder that is empty.</summary>
    public static void DeleteEmptyFolder(string folder) => Wait(() => Directory.Delete(folder));

    /// <summary>
    /// Removes a folder that others read: under a <see cref="TemporaryName"/> first, so that they see all of it or nothing, also where this
    /// process is killed meanwhile.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="owner">Path whose next writer removes what a kill leaves; null for that of the folder.</param>
    public static void RemoveFolder(string folder, string? owner = null)
    {
        string removed = TemporaryName.Beside(owner ?? folder, TemporaryName.Suffix);
        MoveFolder(folder, removed);
        DeleteFolder(removed);
    }

    // Who may not write here is told the same as who meets an open file, and a folder has a removed file in it until its last reader closes it.
    private static void Wait(Action action) => Wait(
        () =>
        {
            action();
            return true;
        },
        static exception => FileErrors.IsInUse(exception) || exception is UnauthorizedAccessException || (exception.HResult & 0xffff) is 5 or 145);

    private static T Wait<T>(Func<T> action, Func<Exception, bool> isMomentary)
    {
        long started = Stopwatch.GetTimestamp();
        for (int pause = 1; ; pause = Math.Min(2 * pause, 50))
        {
            try
            {
                return action();
            }
            catch (Exception exception) when (OperatingSystem.IsWindows() && isMomentary(exception) && Stopwatch.GetElapsedTime(started) < s_limit)
            {
                Thread.Sleep(pause);
            }
        }
    }
}
