using System.Diagnostics;
using System.Management.Automation;
using LoKr.Core.Runs;
using LoKr.PowerShell.Base;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

/// <summary>Waits for the jobs of a submission, and writes each when it has ended.</summary>
[Cmdlet(VerbsLifecycle.Wait, "LoKrSubmission", DefaultParameterSetName = PathSet)]
[OutputType(typeof(LoKrSubmissionJob), typeof(LoKrSubmission))]
public sealed class WaitLoKrSubmissionCommand : SubmissionCommand
{
    private readonly long _started = Stopwatch.GetTimestamp();

    /// <summary>Longest time to wait (90s, 10m, 2h); jobs that go on then are written as they are.</summary>
    [Parameter]
    [DurationTransformation]
    public TimeSpan? Timeout { get; set; }

    /// <summary>Writes one object a submission when all of its jobs have ended, with the counts of its jobs.</summary>
    [Parameter]
    public SwitchParameter Summary { get; set; }

    /// <inheritdoc/>
    protected override void End() => ForEachSubmission(folder =>
    {
        using ProgressBar bar = new(this, $"Waiting for {folder.Path}");
        HashSet<int> written = [];
        while (true)
        {
            IReadOnlyList<LoKrSubmissionJob> jobs = Read(folder);
            int running = jobs.Count(static job => job.State is SubmissionJobState.Running);
            int ended = jobs.Count(IsOver);
            bool isLast = ended == jobs.Count || Stopwatch.GetElapsedTime(_started) >= Timeout;
            foreach (LoKrSubmissionJob job in jobs)
            {
                if (!Summary && (isLast || IsOver(job)) && written.Add(job.Index))
                {
                    WriteObject(job);
                }
            }

            if (isLast)
            {
                if (Summary)
                {
                    WriteObject(folder.Summarize(jobs));
                }

                return;
            }

            bar.ShowIfDue((double)ended / jobs.Count, $"{ended} of {jobs.Count} jobs have ended, {running} are being done");
            if (StopToken.WaitHandle.WaitOne(TimeSpan.FromMilliseconds(500)))
            {
                StopToken.ThrowIfCancellationRequested();
            }
        }
    });

    private static bool IsOver(LoKrSubmissionJob job) => job.State is not (SubmissionJobState.Pending or SubmissionJobState.Running);
}
