using LoKr.Core.Errors;

namespace LoKr.Core.IO;

/// <summary>
/// Links in the folder of a model, an adapter or a data set. A folder that was downloaded may hold links to anything that the user can read, which
/// an export would copy and an error would show: links are followed inside the folder and in the layout of Hugging Face's cache only.
/// </summary>
public sealed class ModelLinks
{
    private readonly string _folder;
    private readonly string _root;

    /// <summary>Finds out where a folder is.</summary>
    /// <param name="folder">The folder, which may itself be a link.</param>
    public ModelLinks(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        (_folder, _root) = (folder, FolderPaths.Resolve(folder));
    }

    /// <summary>Checks one file of a folder; for several, one object knows where the folder is.</summary>
    /// <inheritdoc cref="Check(string)"/>
    /// <param name="folder">The folder, which may itself be a link.</param>
    /// <param name="path">A path in it.</param>
    public static string Check(string folder, string path) => new ModelLinks(folder).Check(path);

    /// <summary>Refuses a file or folder that is, or lies behind, a link to a place outside, and what is neither a file nor a folder.</summary>
    /// <param name="path">A path in the folder.</param>
    /// <returns>The path.</returns>
    /// <exception cref="LoKrException"><c>LoKr.LinkOutsideFolder</c>; <c>LoKr.FileNotReadable</c> for a pipe or a device.</exception>
    public string Check(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string real = FolderPaths.Resolve(path, _folder, _root);
        if (!FolderPaths.Contains(_root, real) && !IsCached(real))
        {
            throw new LoKrException(ErrorIds.LinkOutsideFolder, LoKrErrorKind.InvalidData, $"'{path}' is a link to '{real}', outside the folder '{_folder}'.",
                "Copy the file into the folder if it belongs there; links are followed inside the folder and in Hugging Face's cache only.") { Target = path };
        }

        FileSystem.CheckRegular(real);
        return path;
    }

    // models--ORGANIZATION--NAME/snapshots/REVISION/… links to models--ORGANIZATION--NAME/blobs/HASH.
    private bool IsCached(string real) =>
        Path.GetDirectoryName(real) is string blobs && Path.GetFileName(blobs) == "blobs"
            && Path.GetDirectoryName(blobs) is string cache && _root.StartsWith(Path.Combine(cache, "snapshots") + Path.DirectorySeparatorChar, StringComparison.Ordinal);
}
