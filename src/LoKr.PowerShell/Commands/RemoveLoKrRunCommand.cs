using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Commands;

/// <summary>Removes runs on disk that no process works on.</summary>
[Cmdlet(VerbsCommon.Remove, "LoKrRun", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class RemoveLoKrRunCommand : RunCommand
{
    private readonly List<LoKrRun> _runs = [];

    /// <summary>Removes only runs that were last written longer ago (30d, 12h).</summary>
    [Parameter]
    [DurationTransformation]
    public TimeSpan? OlderThan { get; set; }

    /// <summary>Number of the newest runs that stay.</summary>
    [Parameter]
    [ValidateRange(0, int.MaxValue)]
    public int Keep { get; set; }

    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process() => ForEachRun(folder => _runs.Add(folder.Read()));

    /// <inheritdoc/>
    protected override void End()
    {
        DateTime? limit = OlderThan is TimeSpan age ? DateTime.UtcNow - age : null;
        foreach (LoKrRun run in _runs.OrderByDescending(static run => run.Created).Skip(Keep).Where(run => limit is null || run.Updated < limit))
        {
            ForOne(run.Path, () =>
            {
                RunFolder folder = new(run.Path);
                if (IsRehearsal)
                {
                    folder.CheckRemove();
                }

                if (ShouldProcess(run.Path, $"Remove the run {run.Id}"))
                {
                    folder.Remove();
                }
            });
        }
    }
}
