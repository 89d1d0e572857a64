using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// Links in the folder of a model. A folder that was downloaded may hold links to anything that the user can read, which an export would copy and
/// an error would show: links are followed inside the folder and in the layout of Hugging Face's cache only.
/// </summary>
public static class ModelLinks
{
    /// <summary>Refuses a file or folder that is, or lies behind, a link to a place outside, and what is neither a file nor a folder.</summary>
    /// <param name="folder">The model's folder, which may itself be a link.</param>
    /// <param name="path">A path in it.</param>
    /// <returns>The path.</returns>
    /// <exception cref="LoKrException"><c>LoKr.LinkOutsideFolder</c>; <c>LoKr.FileNotReadable</c> for a pipe or a device.</exception>
    public static string Check(string folder, string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        ArgumentException.ThrowIfNullOrEmpty(path);
        string root = FolderPaths.Resolve(folder);
        string real = FolderPaths.Resolve(path);
        if (!FolderPaths.Contains(root, real) && !IsCached(root, real))
        {
            throw new LoKrException(ErrorIds.LinkOutsideFolder, LoKrErrorKind.InvalidData, $"'{path}' is a link to '{real}', outside the folder '{folder}'.",
                "Copy the file into the folder if it belongs to the model; links are followed inside the folder and in Hugging Face's cache only.") { Target = path };
        }

        FileSystem.CheckRegular(real);
        return path;
    }

    // models--ORGANIZATION--NAME/snapshots/REVISION/… links to models--ORGANIZATION--NAME/blobs/HASH.
    private static bool IsCached(string root, string real) =>
        Path.GetDirectoryName(real) is string blobs && Path.GetFileName(blobs) == "blobs"
            && Path.GetDirectoryName(blobs) is string cache && root.StartsWith(Path.Combine(cache, "snapshots") + Path.DirectorySeparatorChar, StringComparison.Ordinal);
}
