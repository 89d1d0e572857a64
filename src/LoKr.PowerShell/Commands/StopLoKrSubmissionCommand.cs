using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Ends the jobs of a submission: those that wait are not started, those that run end after their step, with a checkpoint.</summary>
[Cmdlet(VerbsLifecycle.Stop, "LoKrSubmission", DefaultParameterSetName = PathSet, SupportsShouldProcess = true)]
[OutputType(typeof(void))]
public sealed class StopLoKrSubmissionCommand : SubmissionCommand
{
    /// <inheritdoc/>
    private protected override bool IsForFirstWorker => true;

    /// <inheritdoc/>
    protected override void End() => ForEachSubmission(folder =>
    {
        LoKrSubmissionJob[] jobs = [.. Read(folder).Where(static job => job.State is SubmissionJobState.Pending or SubmissionJobState.Running)];
        if (jobs.Length == 0 || !ShouldProcess(folder.Path, $"Stop {jobs.Length} {(jobs.Length == 1 ? "job" : "jobs")}"))
        {
            return;
        }

        foreach (LoKrSubmissionJob job in jobs)
        {
            folder.RequestStop(job.Index);
        }

        string[] tasks = [.. jobs.Where(static job => job.Scheduler is SubmissionScheduler.Slurm).Select(static job => job.SchedulerId).OfType<string>()];
        if (tasks.Length > 0)
        {
            SlurmScheduler.Stop(tasks);
        }

        if (!folder.IsLocked)
        {
            // Whatever started them is gone; their runs end by themselves.
            foreach (LoKrSubmissionJob job in jobs.Where(static job => job is { Scheduler: SubmissionScheduler.Local, State: SubmissionJobState.Running }))
            {
                folder.StopRun(job.Index);
            }
        }
    });
}
