using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Asks the processes that work on runs to end them after their step, with a checkpoint.</summary>
[Cmdlet(VerbsLifecycle.Stop, "LoKrRun", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class StopLoKrRunCommand : RunCommand
{
    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void Process() => ForEachRun(folder =>
    {
        if (folder.Read().State is RunState.Running && ShouldProcess(folder.Path, "Stop the run"))
        {
            folder.RequestStop();
        }
    });
}
