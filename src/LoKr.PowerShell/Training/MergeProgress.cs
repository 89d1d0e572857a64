using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Merging;

namespace LoKr.PowerShell.Training;

/// <summary>Progress of a merge on disk, at most five times a second.</summary>
internal sealed class MergeProgress(Cmdlet cmdlet, string activity)
{
    private static readonly long s_interval = Stopwatch.Frequency / 5;
    private long _next;
    private bool _shown;

    /// <summary>Lets through what will be shown; for the threads that write, which must not wait for the pipeline.</summary>
    public Action<CheckpointMergeProgress> Thin(Action<CheckpointMergeProgress> report) => step =>
    {
        long now = Stopwatch.GetTimestamp();
        long next = Interlocked.Read(ref _next);
        if (now >= next && Interlocked.CompareExchange(ref _next, now + s_interval, next) == next)
        {
            report(step);
        }
    };

    /// <summary>Shows a step; only for the pipeline thread.</summary>
    public void Show(CheckpointMergeProgress step)
    {
        _shown = true;
        double share = (double)step.Bytes / step.TotalBytes;
        cmdlet.WriteProgress(new ProgressRecord(0, activity, string.Create(CultureInfo.InvariantCulture,
            $"{step.File}: tensor {step.Tensors}/{step.TotalTensors}, {step.Bytes / 1e9:F2} of {step.TotalBytes / 1e9:F2} GB"))
        {
            PercentComplete = (int)(100 * share),
            SecondsRemaining = (int)Math.Ceiling(step.Elapsed.TotalSeconds * (1 - share) / share),
        });
    }

    /// <summary>Takes the bar away.</summary>
    public void Complete()
    {
        if (_shown)
        {
            cmdlet.WriteProgress(new ProgressRecord(0, activity, "done") { RecordType = ProgressRecordType.Completed });
        }
    }
}
