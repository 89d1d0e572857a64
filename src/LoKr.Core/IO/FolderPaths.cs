using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>Compares the places of folders, with links followed.</summary>
public static class FolderPaths
{
    /// <summary>Refuses a destination that is, is inside or contains the source folder: a folder is replaced as a whole, and its other files would be lost.</summary>
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
                $"'{destination}' is, is inside or contains the source folder '{source}'.", "Choose a folder apart from it.") { Target = destination };
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
