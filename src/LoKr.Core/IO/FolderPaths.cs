using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>Compares the places of folders, with links followed.</summary>
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
