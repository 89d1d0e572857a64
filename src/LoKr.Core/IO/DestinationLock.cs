using System.Globalization;
using System.Text;
using LoKr.Core.Errors;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.IO;

/// <summary>
/// The right to write one destination folder: a file beside it with a lock of the operating system, which releases it when the process
/// ends, however it ends. The file says who holds it.
/// </summary>
internal sealed class DestinationLock : IDisposable
{
    private readonly SafeFileHandle _file;
    private readonly string _path;

    private DestinationLock(SafeFileHandle file, string path) => (_file, _path) = (file, path);

    /// <summary>Takes the lock.</summary>
    /// <param name="destination">Full path of the folder to write; its parent exists.</param>
    /// <exception cref="LoKrException"><c>LoKr.DestinationBusy</c>.</exception>
    /// <exception cref="IOException">The file cannot be opened, or is not a lock.</exception>
    public static DestinationLock Take(string destination)
    {
        string path = TemporaryName.Of(destination, "lokr-lock");
        return OperatingSystem.IsLinux() ? TakeOnLinux(destination, path) : TakeElsewhere(destination, path);
    }

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
            // The folder is gone or closed to this process by now; a file that stays without a holder is no obstacle to the next writer.
        }
    }

    private static DestinationLock TakeOnLinux(string destination, string path)
    {
        while (true)
        {
            SafeFileHandle file = NativeFiles.OpenWithoutLinks(path, write: true);
            try
            {
                if (!NativeFiles.TryLock(file, path))
                {
                    throw Busy(destination, ReadHolder(file), null);
                }

                FileIdentity held = NativeFiles.Identify(file, path);
                if (held.Links > 1)
                {
                    throw new IOException($"'{path}' is not a lock: the file has another name too.");
                }

                if (held.Links == 1)
                {
                    RandomAccess.SetLength(file, 0);
                    RandomAccess.Write(file, Encoding.UTF8.GetBytes(Holder()), 0);
                    DestinationLock taken = new(file, path);
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

    private static DestinationLock TakeElsewhere(string destination, string path)
    {
        if (new FileInfo(path).LinkTarget is not null)
        {
            throw new IOException($"'{path}' is a link.");
        }

        try
        {
            return new(File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, FileOptions.DeleteOnClose), path);
        }
        catch (IOException exception) when (IsConflict(exception))
        {
            throw Busy(destination, "another process", exception);
        }
    }

    // ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION of Windows, EWOULDBLOCK of macOS.
    private static bool IsConflict(IOException exception) =>
        OperatingSystem.IsWindows() ? (exception.HResult & 0xffff) is 0x20 or 0x21 : exception.HResult is 35;

    private static string Holder() => string.Create(CultureInfo.InvariantCulture,
        $"process {Environment.ProcessId} ({Path.GetFileName(Environment.ProcessPath)}) on {Environment.MachineName}, since {DateTime.UtcNow:yyyy-MM-dd HH:mm:ss} UTC");

    private static string ReadHolder(SafeFileHandle file)
    {
        byte[] bytes = new byte[512];
        string text = Encoding.UTF8.GetString(bytes, 0, RandomAccess.Read(file, bytes, 0)).Trim();
        return text.StartsWith("process ", StringComparison.Ordinal) && !text.Any(char.IsControl) ? text : "another process";
    }

    private static LoKrException Busy(string destination, string holder, Exception? cause) => new(
        ErrorIds.DestinationBusy,
        LoKrErrorKind.InvalidOperation,
        $"'{destination}' is being written by {holder}.",
        "Wait until it has finished, or choose another destination.",
        cause)
    {
        Target = destination,
    };
}
