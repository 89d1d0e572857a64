using System.Collections.ObjectModel;
using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.PowerShell.Errors;
using Microsoft.PowerShell.Commands;

namespace LoKr.PowerShell.Binding;

/// <summary>Turns paths as users write them, with drives, wildcards and the current location of PowerShell, into paths of the file system.</summary>
internal sealed class PathResolver(PSCmdlet cmdlet)
{
    private readonly HashSet<string> _destinations = new(OperatingSystem.IsWindows() ? StringComparer.OrdinalIgnoreCase : StringComparer.Ordinal);

    /// <summary>Whether every path of the call is taken as it is written, because -LiteralPath was given. Objects of the pipeline that bind to it decide for themselves only.</summary>
    public bool IsLiteral { get; set; }

    /// <summary>Full paths of the existing files or folders that a path matches; none is an exception.</summary>
    /// <param name="path">The path.</param>
    /// <param name="literal">Whether characters such as [ are taken as they are; null to follow the call.</param>
    /// <param name="mayBeNone">Whether a pattern may match nothing, as for Get-Item and Remove-Item.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/>, or <see cref="ModuleErrorIds.PathNotFileSystem"/>.</exception>
    public IReadOnlyList<string> Existing(string path, bool? literal = null, bool mayBeNone = false)
    {
        if (literal ?? IsLiteral)
        {
            string full = New(path);
            return Path.Exists(full) ? [full] : throw NotFound(path, full, null);
        }

        try
        {
            Collection<string> found = cmdlet.GetResolvedProviderPathFromPSPath(path, out ProviderInfo provider);
            RequireFileSystem(path, provider);
            return found.Count > 0 ? found : mayBeNone && IsPattern(path) ? [] : throw NoMatch(path, null);
        }
        catch (SessionStateException exception)
        {
            throw NoMatch(path, exception);
        }
    }

    /// <summary>Full path of the only file or folder that a path matches; none and several are exceptions.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.InvalidArgument"/> for several, and as for <see cref="Existing"/>.</exception>
    public string ExistingOne(string path, bool? literal = null)
    {
        IReadOnlyList<string> found = Existing(path, literal);
        return found.Count == 1
            ? found[0]
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"'{path}' matches {found.Count} items: {string.Join(", ", found)}.", "Name one of them.") { Target = path };
    }

    /// <summary>
    /// Full path of the only file or folder that a parameter names which objects of the pipeline bind to: where there is one of that very name it is meant,
    /// as PSPath and FullName are written, and otherwise the path may have wildcards.
    /// </summary>
    /// <exception cref="LoKrException">As for <see cref="ExistingOne(string, bool?)"/>.</exception>
    public string ExistingOnePiped(string path) => ExistingOne(path, literal: IsLiteral || (cmdlet.MyInvocation.ExpectingInput && Path.Exists(New(path))));

    /// <summary>Full path of the only file or folder that one of two parameters names.</summary>
    /// <param name="path">The value of -Path.</param>
    /// <param name="literalPath">The value of -LiteralPath, empty if it was not given.</param>
    /// <exception cref="LoKrException">As for <see cref="ExistingOne(string, bool?)"/>.</exception>
    public string ExistingOne(string path, string literalPath) =>
        literalPath.Length > 0 ? ExistingOne(literalPath, literal: true) : ExistingOne(path, literal: false);

    /// <summary>Full path of the file or folder that becomes the result for one object. Each object of a command has its own.</summary>
    /// <exception cref="LoKrException">As for <see cref="New"/>, or <see cref="ModuleErrorIds.DestinationShared"/>.</exception>
    public string Destination(string path)
    {
        string full = New(path);
        return _destinations.Add(Path.TrimEndingDirectorySeparator(full)) ? full : throw new LoKrException(ModuleErrorIds.DestinationShared, LoKrErrorKind.InvalidArgument,
            $"'{full}' is the destination of another object of the same command too, of which nothing would be left.", "Give each object its own, by a script block: -Destination { \"out/$($_.Name)\" }.") { Target = full };
    }

    /// <summary>Full path of something that need not exist.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.PathNotFound"/> for an unknown drive, or <see cref="ModuleErrorIds.PathNotFileSystem"/>.</exception>
    public string New(string path)
    {
        string full;
        ProviderInfo provider;
        try
        {
            full = cmdlet.SessionState.Path.GetUnresolvedProviderPathFromPSPath(path, out provider, out _);
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

    private bool IsPattern(string path) => WildcardPattern.ContainsWildcardCharacters(path) && !Path.Exists(New(path));

    // Names with brackets are common ("style [v1.2].safetensors"), and as wildcards they do not match themselves.
    private LoKrException NoMatch(string path, Exception? inner)
    {
        if (!WildcardPattern.ContainsWildcardCharacters(path) || IsPattern(path))
        {
            return NotFound(path, path, inner);
        }

        string parameter = cmdlet.MyInvocation.MyCommand.Parameters.ContainsKey("LiteralPath") ? "use -LiteralPath, or " : "";
        return new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"Nothing matches '{path}' as a pattern, but it exists when it is taken literally.",
            $"To take it literally, {parameter}write a backtick before each bracket.", inner) { Target = path };
    }

    private static LoKrException NotFound(string path, string full, Exception? inner) => new(ErrorIds.PathNotFound, LoKrErrorKind.NotFound,
        path == full ? $"There is nothing at '{path}'." : $"There is nothing at '{path}' ({full}).",
        "Check the spelling; relative paths start at the current location.", inner) { Target = path };
}
