using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>Compares the places of folders, with links followed at every depth.</summary>
public static class FolderPaths
{
    // As many as Linux follows.
    private const int MaxLinks = 40;

    /// <summary>The deepest folder that holds all folders; the root, or on Windows nothing, where there is no other.</summary>
    /// <param name="folders">Full paths, at least one.</param>
    public static string Common(IReadOnlyList<string> folders)
    {
        ArgumentNullException.ThrowIfNull(folders);
        string[][] parts = [.. folders.Select(static folder => folder.Split(Path.DirectorySeparatorChar))];
        string common = string.Join(Path.DirectorySeparatorChar, parts[0].TakeWhile((part, i) => parts.All(other => other.ElementAtOrDefault(i) == part)));
        return common.Length > 0 || parts[0][0].Length > 0 ? common : Path.DirectorySeparatorChar.ToString();
    }

    /// <summary>Refuses a destination that is, is inside or contains the source folder: a folder is replaced as a whole, and its other files would be lost.</summary>
    /// <param name="source">Folder that is read.</param>
    /// <param name="destination">Folder to write.</param>
    /// <exception cref="LoKrException"><c>LoKr.ExportIntoSource</c>; <c>LoKr.FileNotReadable</c> for links in a circle.</exception>
    public static void CheckApart(string source, string destination)
    {
        string from = Resolve(source);
        string to = Resolve(destination);
        if (Contains(from, to) || Contains(to, from))
        {
            throw new LoKrException(ErrorIds.ExportIntoSource, LoKrErrorKind.InvalidArgument,
                $"'{destination}' is, is inside or contains the source folder '{source}'.", "Choose a folder apart from it.") { Target = destination };
        }
    }

    /// <summary>The full path of a file or folder without links in it; parts that do not exist stay as they are.</summary>
    /// <param name="path">A path.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotReadable</c> for links in a circle.</exception>
    public static string Resolve(string path)
    {
        string full = Path.GetFullPath(path);
        return Follow(Path.GetPathRoot(full)!, Parts(full), path);
    }

    /// <summary>The same for a path in a folder whose place is known: only what is below the folder is looked at.</summary>
    /// <param name="path">A path.</param>
    /// <param name="folder">A folder that it may be in.</param>
    /// <param name="resolved">That folder without links.</param>
    internal static string Resolve(string path, string folder, string resolved)
    {
        string full = Path.GetFullPath(path);
        string prefix = Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder));
        return full.Length > prefix.Length && full.StartsWith(prefix, StringComparison.Ordinal) && full[prefix.Length] == Path.DirectorySeparatorChar
            ? Follow(resolved, Parts(Path.GetPathRoot(full) + full[(prefix.Length + 1)..]), path)
            : Resolve(path);
    }

    private static string Follow(string resolved, IEnumerable<string> parts, string path)
    {
        Stack<string> rest = new(parts);
        for (int links = 0; rest.TryPop(out string? part);)
        {
            string next = part == ".." ? Path.GetDirectoryName(resolved) ?? resolved : Path.Combine(resolved, part);
            if (part == ".." || LinkTarget(next) is not { } target)
            {
                resolved = next;
                continue;
            }

            if (++links > MaxLinks)
            {
                throw FileErrors.NotReadable(path, new IOException("Too many links follow each other."));
            }

            if (Path.IsPathRooted(target))
            {
                target = Path.GetFullPath(target, resolved);
                resolved = Path.GetPathRoot(target)!;
            }

            foreach (string inner in Parts(target))
            {
                rest.Push(inner);
            }
        }

        return Path.TrimEndingDirectorySeparator(resolved);
    }

    /// <summary>Whether a folder is another one or contains it.</summary>
    /// <param name="outer">Full path without links.</param>
    /// <param name="inner">Full path without links.</param>
    internal static bool Contains(string outer, string inner)
    {
        string relative = Path.GetRelativePath(outer, inner);
        return relative == "." || (!Path.IsPathRooted(relative) && relative.Split(Path.DirectorySeparatorChar)[0] != "..");
    }

    // Last part first.
    private static IEnumerable<string> Parts(string path) => path[Path.GetPathRoot(path)!.Length..]
        .Split([Path.DirectorySeparatorChar, Path.AltDirectorySeparatorChar], StringSplitOptions.RemoveEmptyEntries).Where(static part => part != ".").Reverse();

    private static string? LinkTarget(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotReadable(path, exception);
        }
    }
}
