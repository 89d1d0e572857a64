using System.Globalization;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace LoKr.Core.IO;

/// <summary>
/// System calls that .NET does not offer: exclusive creation of folders, opening without following links, swapping two folders in one
/// step, hard links, owners, and flushing folders. Where a system has no such call, the method says so or does what .NET can.
/// Failures are <see cref="IOException"/> with the number of the error as HResult, as .NET's own are.
/// </summary>
internal static unsafe partial class NativeFiles
{
    /// <summary>Number of the error for a lock that another process holds.</summary>
    public const int WouldBlock = 11;

    private const int NotPermitted = 1;
    private const int Interrupted = 4;
    private const int AtCurrent = -100;

    /// <summary>Creates a folder; one that exists, or a link of that name, is an error.</summary>
    public static void CreateFolder(string path)
    {
        if (!OperatingSystem.IsWindows())
        {
            Check(MakeDirectory(path, 0x1ff), path);
        }
        else if (Path.Exists(path))
        {
            throw new IOException($"'{path}' exists.");
        }
        else
        {
            Directory.CreateDirectory(path);
        }
    }

    /// <summary>Opens or creates a file on Linux without following a link.</summary>
    /// <param name="path">The file.</param>
    /// <param name="write">Whether to open it for writing and to create it.</param>
    public static SafeFileHandle OpenWithoutLinks(string path, bool write)
    {
        const int ReadWrite = 2, Create = 0x40, CloseOnExec = 0x80000, NonBlocking = 0x800;
        int noFollow = RuntimeInformation.ProcessArchitecture is Architecture.Arm64 or Architecture.Arm ? 0x8000 : 0x20000;
        return new SafeFileHandle(Check(Open(path, (write ? ReadWrite | Create : 0) | noFollow | CloseOnExec | NonBlocking, 0x1b6), path), ownsHandle: true);
    }

    /// <summary>Locks an open file of Linux for this handle alone; false where another handle has it.</summary>
    public static bool TryLock(SafeFileHandle file, string path)
    {
        const int ExclusiveNonBlocking = 2 | 4;
        while (FileLock(file, ExclusiveNonBlocking) != 0)
        {
            switch (Marshal.GetLastPInvokeError())
            {
                case Interrupted:
                    continue;
                case WouldBlock:
                    return false;
                default:
                    throw Failure(path);
            }
        }

        return true;
    }

    /// <summary>Linux's record of an open file.</summary>
    public static FileIdentity Identify(SafeFileHandle file, string path)
    {
        const int EmptyPath = 0x1000;
        bool held = false;
        try
        {
            file.DangerousAddRef(ref held);
            return Identify((int)file.DangerousGetHandle(), "", EmptyPath, path);
        }
        finally
        {
            if (held)
            {
                file.DangerousRelease();
            }
        }
    }

    /// <summary>Linux's record of a file, folder or link; links are not followed.</summary>
    public static FileIdentity Identify(string path) => Identify(AtCurrent, path, 0x100, path);

    /// <summary>Swaps two folders in one step.</summary>
    /// <returns>False where the system or the file system cannot.</returns>
    public static bool TryExchange(string first, string second)
    {
        const int InvalidArgument = 22, NotImplemented = 38, NotSupported = 95;
        if (!OperatingSystem.IsLinux())
        {
            return false;
        }

        try
        {
            if (Rename(AtCurrent, first, AtCurrent, second, 2) == 0)
            {
                return true;
            }
        }
        catch (EntryPointNotFoundException)
        {
            // A C library older than the call.
            return false;
        }

        return Marshal.GetLastPInvokeError() is InvalidArgument or NotImplemented or NotSupported ? false : throw Failure(second);
    }

    /// <summary>Gives a file a second name, or copies it where the system cannot.</summary>
    public static void LinkOrCopy(string path, string second)
    {
        if (OperatingSystem.IsWindows() || HardLink(path, second) != 0)
        {
            File.Copy(path, second);
        }
    }

    /// <summary>Flushes the list of names of a folder to the disk, where the system has such a call.</summary>
    public static void FlushFolder(string path)
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        using SafeFileHandle folder = OpenWithoutLinks(path, write: false);
        Check(Synchronize(folder), path);
    }

    /// <summary>Gives a file or folder the mode and, where this process may, the owner of another one.</summary>
    /// <param name="from">File or folder with the mode.</param>
    /// <param name="to">File or folder of this process.</param>
    public static void CopyAccess(string from, string to)
    {
        if (!OperatingSystem.IsWindows())
        {
            CopyOwner(from, to);
            File.SetUnixFileMode(to, File.GetUnixFileMode(from));
        }
    }

    /// <summary>Gives a file or folder the owner of another one, where this process may.</summary>
    public static void CopyOwner(string from, string to)
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        FileIdentity owner = Identify(from);
        FileIdentity current = Identify(to);
        if ((owner.User, owner.Group) != (current.User, current.Group) && ChangeOwner(to, owner.User, owner.Group) != 0 && Marshal.GetLastPInvokeError() != NotPermitted)
        {
            throw Failure(to);
        }
    }

    /// <summary>Whether a folder is one of this user, and not a link to one.</summary>
    public static bool IsOwnFolder(string path) =>
        Directory.Exists(path) && new DirectoryInfo(path).LinkTarget is null && (!OperatingSystem.IsLinux() || Identify(path).User == EffectiveUser());

    /// <summary>The owner of a file or folder where that is neither this user nor root; null elsewhere, and on systems other than Linux. Links are not followed.</summary>
    public static uint? ForeignOwner(string path) =>
        OperatingSystem.IsLinux() && Identify(path).User is var owner && owner != 0 && owner != EffectiveUser() ? owner : null;

    /// <summary>
    /// A text that changes whenever a file is replaced or written; links are followed. On Linux it holds the time of the last change, which no program
    /// can set; elsewhere only what .NET tells.
    /// </summary>
    public static string ChangeStamp(string path)
    {
        if (!OperatingSystem.IsLinux())
        {
            FileInfo file = new(path);
            file = file.LinkTarget is null ? file : (FileInfo)file.ResolveLinkTarget(returnFinalTarget: true)!;
            return string.Create(CultureInfo.InvariantCulture, $"{file.Length}:{file.CreationTimeUtc.Ticks}:{file.LastWriteTimeUtc.Ticks}");
        }

        StatX found = StatOf(AtCurrent, path, 0, path);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{found.DeviceMajor}:{found.DeviceMinor}:{found.Inode}:{found.Size}:{found.Modified.Seconds}.{found.Modified.Nanoseconds}:{found.Changed.Seconds}.{found.Changed.Nanoseconds}");
    }

    private static FileIdentity Identify(int folder, string path, int flags, string name)
    {
        StatX found = StatOf(folder, path, flags, name);
        return new(found.DeviceMajor, found.DeviceMinor, found.Inode, found.Links, found.User, found.Group, (found.Changed.Seconds * 1_000_000_000) + found.Changed.Nanoseconds);
    }

    private static StatX StatOf(int folder, string path, int flags, string name)
    {
        StatX found = default;
        Check(Stat(folder, path, flags, 0x7ff, &found), name);
        return found;
    }

    private static int Check(int result, string path) => result >= 0 ? result : throw Failure(path);

    private static IOException Failure(string path)
    {
        int error = Marshal.GetLastPInvokeError();
        return new IOException($"{Marshal.GetPInvokeErrorMessage(error)}: '{path}'", error);
    }

    [LibraryImport("libc", EntryPoint = "mkdir", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int MakeDirectory(string path, uint mode);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags, uint mode);

    [LibraryImport("libc", EntryPoint = "flock", SetLastError = true)]
    private static partial int FileLock(SafeFileHandle file, int operation);

    [LibraryImport("libc", EntryPoint = "fsync", SetLastError = true)]
    private static partial int Synchronize(SafeFileHandle file);

    [LibraryImport("libc", EntryPoint = "link", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int HardLink(string path, string second);

    [LibraryImport("libc", EntryPoint = "lchown", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int ChangeOwner(string path, uint user, uint group);

    [LibraryImport("libc", EntryPoint = "geteuid")]
    private static partial uint EffectiveUser();

    [LibraryImport("libc", EntryPoint = "renameat2", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Rename(int firstFolder, string first, int secondFolder, string second, uint flags);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Stat(int folder, string path, int flags, uint mask, StatX* result);

    // The layout is the same on every architecture.
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct StatX
    {
        [FieldOffset(16)]
        public uint Links;

        [FieldOffset(20)]
        public uint User;

        [FieldOffset(24)]
        public uint Group;

        [FieldOffset(32)]
        public ulong Inode;

        [FieldOffset(40)]
        public ulong Size;

        [FieldOffset(96)]
        public StatXTime Changed;

        [FieldOffset(112)]
        public StatXTime Modified;

        [FieldOffset(136)]
        public uint DeviceMajor;

        [FieldOffset(140)]
        public uint DeviceMinor;
    }

    [StructLayout(LayoutKind.Sequential, Size = 16)]
    private struct StatXTime
    {
        public long Seconds;
        public uint Nanoseconds;
    }
}

/// <summary>A file of Linux, whatever its name. The last change, in nanoseconds, tells it from a later file with the same inode.</summary>
internal readonly record struct FileIdentity(uint DeviceMajor, uint DeviceMinor, ulong Inode, uint Links, uint User, uint Group, long Changed);
