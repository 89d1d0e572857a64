namespace LoKr.Core.IO;

/// <summary>
/// Whether other users can change what is at a path, by the owners and modes of files. Windows has neither: there the answer is always no, and the
/// access lists of the folder decide.
/// </summary>
internal static class FileTrust
{
    private const UnixFileMode Others = UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;

    /// <summary>Why other users than root can change a file or what a folder holds, in words; null where they cannot.</summary>
    /// <param name="path">A file or folder that exists.</param>
    public static string? Objection(string path)
    {
        if (OperatingSystem.IsWindows())
        {
            return null;
        }

        UnixFileMode mode = File.GetUnixFileMode(path);
        return (mode & Others) == 0 ? OwnerObjection(path)
            : $"'{path}' can be written by {((mode & UnixFileMode.OtherWrite) != 0 ? "every user" : "its group")} (mode {Octal(mode)})";
    }

    /// <summary>
    /// Why other users than root can replace a folder by one of their own, because of a folder above it; null where they cannot. Folders like /tmp, in
    /// which everybody may write but nobody may rename what belongs to others, are harmless.
    /// </summary>
    /// <param name="folder">Full path without links.</param>
    public static string? ParentObjection(string folder)
    {
        if (OperatingSystem.IsWindows())
        {
            return null;
        }

        for (string? parent = Path.GetDirectoryName(folder); parent is not null; parent = Path.GetDirectoryName(parent))
        {
            if (!Directory.Exists(parent))
            {
                continue;
            }

            UnixFileMode mode = File.GetUnixFileMode(parent);
            string? objection = (mode & (UnixFileMode.OtherWrite | UnixFileMode.StickyBit)) == UnixFileMode.OtherWrite
                ? $"'{parent}' can be written by every user (mode {Octal(mode)})"
                : OwnerObjection(parent);
            if (objection is not null)
            {
                return objection;
            }
        }

        return null;
    }

    /// <summary>Takes the write access of other users away.</summary>
    /// <param name="path">A file or folder of this user.</param>
    public static void Restrict(string path)
    {
        if (!OperatingSystem.IsWindows() && File.GetUnixFileMode(path) is var mode && (mode & Others) != 0)
        {
            File.SetUnixFileMode(path, mode & ~Others);
        }
    }

    private static string? OwnerObjection(string path) => NativeFiles.ForeignOwner(path) is uint owner ? $"'{path}' belongs to the user with the id {owner}" : null;

    private static string Octal(UnixFileMode mode) => Convert.ToString((int)mode, 8);
}
