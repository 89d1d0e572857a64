using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;

namespace LoKr.PowerShell.Commands;

/// <summary>Shows how far the jobs of a submission are.</summary>
[Cmdlet(VerbsCommon.Get, "LoKrSubmission", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrSubmissionJob), typeof(LoKrSubmission))]
public sealed class GetLoKrSubmissionCommand : SubmissionCommand
{
    /// <summary>Writes one object a submission, with the counts of its jobs.</summary>
    [Parameter]
    public SwitchParameter Summary { get; set; }

    /// <inheritdoc/>
    protected override void End() => ForEachSubmission(folder =>
    {
        IReadOnlyList<LoKrSubmissionJob> jobs = Read(folder);
        if (Summary)
        {
            WriteObject(folder.Summarize(jobs));
            return;
        }

        foreach (LoKrSubmissionJob job in jobs)
        {
            WriteObject(job);
        }
    });
}
