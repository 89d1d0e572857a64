using System.Collections.ObjectModel;
using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.PowerShell.Errors;
using Microsoft.PowerShell.Commands;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that take paths: PowerShell's current location, wildcards, drives and literal paths.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class PathCommand : LoKrCommand
{
    /// <summary>Full file system paths of existing files or folders; what cannot be found is written as an error.</summary>
    /// <param name="paths">Paths as the user gave them.</param>
    /// <param name="literal">Whether characters such as [ are taken as they are.</param>
    protected IEnumerable<string> ResolveExisting(IEnumerable<string> paths, bool literal)
    {
        ArgumentNullException.ThrowIfNull(paths);
        foreach (string path in paths)
        {
            IReadOnlyList<string> found = [];
            ForOne(path, () => found = ResolveOne(path, literal));
            foreach (string one in found)
            {
                yield return one;
            }
        }
    }

    /// <summary>Full file system paths of one existing path with wildcards; none is an exception.</summary>
    protected IReadOnlyList<string> ResolveOne(string path, bool literal)
    {
        try
        {
            if (literal)
            {
                string full = ResolveNew(path);
                return Path.Exists(full) ? [full] : throw NotFound(path, full, null);
            }

            Collection<string> found = GetResolvedProviderPathFromPSPath(path, out ProviderInfo provider);
            RequireFileSystem(path, provider);
            return found.Count > 0 ? found : throw NotFound(path, path, null);
        }
        catch (Exception exception) when (exception is SessionStateException)
        {
            throw NotFound(path, path, exception);
        }
    }

    /// <summary>Full file system path of the one file or folder that a path stands for.</summary>
    protected string OnlyOne(string path, bool literal)
    {
        IReadOnlyList<string> found = ResolveOne(path, literal);
        return found.Count == 1
            ? found[0]
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"'{path}' stands for {found.Count} items: {string.Join(", ", found)}.", "Name one of them.") { Target = path };
    }

    /// <summary>Full file system path of something that need not exist, for example a destination.</summary>
    protected string ResolveNew(string path)
    {
        string full;
        ProviderInfo provider;
        try
        {
            full = SessionState.Path.GetUnresolvedProviderPathFromPSPath(path, out provider, out _);
        }
        catch (SessionStateException exception)
        {
            throw NotFound(path, path, exception);
        }

        RequireFileSystem(path, provider);
        return full;
    }

    private static void RequireFileSystem(string path, ProviderInfo provider)
    {
        if (!string.Equals(provider.Name, FileSystemProvider.ProviderName, StringComparison.OrdinalIgnoreCase))
        {
            throw new LoKrException(ModuleErrorIds.PathNotFileSystem, LoKrErrorKind.InvalidArgument,
                $"'{path}' belongs to the {provider.Name} provider.", "Give the path of a file or folder.") { Target = path };
        }
    }

    private static LoKrException NotFound(string path, string full, Exception? inner) => new(ErrorIds.PathNotFound, LoKrErrorKind.NotFound,
        path == full ? $"There is nothing at '{path}'." : $"There is nothing at '{path}' ({full}).",
        "Check the spelling; relative paths start at the current location.", inner) { Target = path };
}
