using System.ComponentModel;
using System.Management.Automation;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that read any number of files or folders.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class PathCommand : LoKrCommand
{
    /// <summary>Parameter set of <see cref="Path"/>.</summary>
    protected const string PathSet = "Path";

    /// <summary>Parameter set of <see cref="LiteralPath"/>.</summary>
    protected const string LiteralPathSet = "LiteralPath";

    /// <summary>Files or folders to read. Wildcards are allowed.</summary>
    [Parameter(Mandatory = true, Position = 0, ValueFromPipeline = true, ParameterSetName = PathSet)]
    [SupportsWildcards]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(PathCompleter))]
    public string[] Path { get; set; } = [];

    /// <summary>Files or folders to read, taken as they are written.</summary>
    [Parameter(Mandatory = true, ValueFromPipelineByPropertyName = true, ParameterSetName = LiteralPathSet)]
    [Alias("PSPath", "FullName")]
    [ValidateNotNullOrEmpty]
    public string[] LiteralPath { get; set; } = [];

    /// <summary>Whether a pattern may match nothing: where the command lists, ends or removes what there is.</summary>
    private protected virtual bool MayBeNone => false;

    /// <summary>Does something with each file or folder; an error is written, and the next one follows.</summary>
    /// <param name="action">Takes a full path.</param>
    protected void ForEachPath(Action<string> action)
    {
        bool literal = ParameterSetName == LiteralPathSet;
        foreach (string path in literal ? LiteralPath : Path)
        {
            IReadOnlyList<string> found = [];
            ForOne(path, () => found = Paths.Existing(path, literal, MayBeNone));
            foreach (string item in found)
            {
                ForOne(item, () => action(item));
            }
        }
    }
}
