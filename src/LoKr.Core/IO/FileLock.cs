using System.Diagnostics;
using System.Globalization;
using System.Text;
using LoKr.Core.Errors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.IO;

/// <summary>
/// A file with a lock of the operating system, which releases it when the process ends, however it ends. The file says who holds it.
/// </summary>
internal sealed class FileLock : IDisposable
{
    private readonly SafeFileHandle _file;
    private readonly string _path;

    private FileLock(SafeFileHandle file, string path) => (_file, _path, Former) = (file, path, ReadText(file));

    /// <summary>Text that a holder that did not end in order left in the file; empty without one.</summary>
    public string Former { get; }

    /// <summary>The process, the machine and the time, as one line.</summary>
    public static string DescribeHolder() => string.Create(CultureInfo.InvariantCulture,
        $"process {Environment.ProcessId} ({Path.GetFileName(Environment.ProcessPath)}) on {Environment.MachineName}, since {DateTime.UtcNow:yyyy-MM-dd HH:mm:ss} UTC");

    /// <summary>Takes the lock. <see cref="Write"/> then says who holds it.</summary>
    /// <param name="path">Full path of the file; its folder exists.</param>
    /// <param name="busy">Makes the error for a lock that another process holds, from the first line of its file.</param>
    /// <exception cref="LoKrException">The error of <paramref name="busy"/>.</exception>
    /// <exception cref="IOException">The file cannot be opened, or is not a lock.</exception>
    public static FileLock Take(string path, Func<string, LoKrException> busy) => OperatingSystem.IsLinux() ? TakeOnLinux(path, busy) : TakeElsewhere(path, busy);

    /// <summary>Current text of the file; empty for a file that cannot be read.</summary>
    public static string Peek(string path)
    {
        try
        {
            // .NET takes a lock of its own on a file that it opens, which the holder's does not let in.
            using SafeFileHandle file = OperatingSystem.IsLinux() ? NativeFiles.OpenWithoutLinks(path, write: false)
                : File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            return ReadText(file);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            // Without a file nobody holds it; elsewhere than on Linux a held one cannot be opened.
            return "";
        }
    }

    /// <summary>Who has the lock, from the text of its file, to go on in a sentence.</summary>
    public static string HolderIn(string text)
    {
        string line = text.Split('\n')[0].Trim();
        return line.StartsWith("process ", StringComparison.Ordinal) && !line.Any(char.IsControl) ? line : "another process";
    }

    /// <summary>Replaces what the file says.</summary>
    public void Write(string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        RandomAccess.Write(_file, bytes, 0);
        RandomAccess.SetLength(_file, bytes.Length);
    }

    /// <summary>Current text of the file.</summary>
    public string Read() => ReadText(_file);

    /// <summary>Releases the lock.</summary>
    public void Dispose()
    {
        using SafeFileHandle file = _file;
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        try
        {
            // Removed while it is held: a process that opened it before sees that the name is gone, and opens another one.
            File.Delete(_path);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            // The folder is gone or closed to this process by now; a file that stays without a holder does not hinder the next writer.
        }
    }

    private static FileLock TakeOnLinux(string path, Func<string, LoKrException> busy)
    {
        while (true)
        {
            SafeFileHandle file = NativeFiles.OpenWithoutLinks(path, write: true);
            try
            {
                if (!NativeFiles.TryLock(file, path))
                {
                    throw busy(HolderIn(ReadText(file)));
                }

                FileIdentity held = NativeFiles.Identify(file, path);
                if (held.Links > 1)
                {
                    throw new IOException($"'{path}' is not a lock: the file has another name too.");
                }

                if (held.Links == 1)
                {
                    FileLock taken = new(file, path);
                    file = null!;
                    return taken;
                }
            }
            finally
            {
                file?.Dispose();
            }
        }
    }

    private static FileLock TakeElsewhere(string path, Func<string, LoKrException> busy)
    {
        if (new FileInfo(path).LinkTarget is not null)
        {
            throw new IOException($"'{path}' is a link.");
        }

        try
        {
            return new(File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, FileOptions.DeleteOnClose), path);
        }
        catch (IOException exception) when (FileErrors.IsInUse(exception))
        {
            throw busy(HolderIn(""));
        }
    }

    private static string ReadText(SafeFileHandle file)
    {
        byte[] bytes = new byte[512];
        return Encoding.UTF8.GetString(bytes, 0, RandomAccess.Read(file, bytes, 0));
    }
}

/// <summary>The right to write one destination folder: a <see cref="FileLock"/> beside it.</summary>
internal static class DestinationLock
{
    /// <summary>Takes the lock.</summary>
    /// <param name="destination">Full path of the folder to write; its parent exists.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationBusy</c>.</exception>
    /// <exception cref="IOException">The file cannot be opened, or is not a lock.</exception>
    public static FileLock Take(string destination) => Wait(destination, TimeSpan.Zero);

    /// <summary>Takes the lock of something that is written within moments; waits for other writers up to half a minute.</summary>
    /// <inheritdoc cref="Take"/>
    public static FileLock Wait(string destination) => Wait(destination, TimeSpan.FromSeconds(30));

    private static FileLock Wait(string destination, TimeSpan limit)
    {
        long started = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                return TakeNow(destination);
            }
            catch (LoKrException exception) when (exception.ErrorId == ErrorIds.DestinationBusy && Stopwatch.GetElapsedTime(started) < limit)
            {
                Thread.Sleep(10);
            }
        }
    }

    private static FileLock TakeNow(string destination)
    {
        FileLock held = FileLock.Take(TemporaryName.Of(destination, "lokr-lock"), holder => new LoKrException(
            ErrorIds.DestinationBusy,
            LoKrErrorKind.InvalidOperation,
            $"'{destination}' is being written by {holder}.",
            "Wait until it has finished, or choose another destination.")
        {
            Target = destination,
        });
        try
        {
            held.Write(FileLock.DescribeHolder());
            return held;
        }
        catch
        {
            // The disk may be full; this process would hold it for as long as it lives.
            held.Dispose();
            throw;
        }
    }
}
