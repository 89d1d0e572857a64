using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Runs;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that work with run folders.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class RunCommand : PathCommand
{
    /// <inheritdoc/>
    private protected override bool MayBeNone => true;

    /// <summary>Does something with each run; folders without a run that a wildcard matches are passed over.</summary>
    /// <param name="action">Takes the run folder.</param>
    protected void ForEachRun(Action<RunFolder> action)
    {
        bool pattern = ParameterSetName != LiteralPathSet && Path.Any(WildcardPattern.ContainsWildcardCharacters);
        ForEachPath(path =>
        {
            RunFolder folder = new(path);
            if (folder.Exists || !pattern)
            {
                action(folder);
            }
        });
    }
}
