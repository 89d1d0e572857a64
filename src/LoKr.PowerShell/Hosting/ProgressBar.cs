using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;

namespace LoKr.PowerShell.Hosting;

/// <summary>The progress bar of one activity, with the time that is left. Disposing takes it away.</summary>
internal sealed class ProgressBar(Cmdlet cmdlet, string activity) : IDisposable
{
    // A person reads no faster, and hosts draw slowly.
    private static readonly long s_interval = Stopwatch.Frequency / 5;

    private readonly long _started = Stopwatch.GetTimestamp();
    private long _next;
    private bool _shown;

    /// <summary>Lets a report through at most five times a second. For work on other threads, which must not wait for the pipeline.</summary>
    /// <param name="report">Takes the report to the pipeline thread.</param>
    public Action<T> Throttle<T>(Action<T> report) => value =>
    {
        if (IsDue())
        {
            report(value);
        }
    };

    /// <summary>Shows how far the work is. Only for the pipeline thread.</summary>
    /// <param name="share">The share that is done, from 0 to 1.</param>
    /// <param name="status">The state in words; numbers are written invariantly.</param>
    public void Show(double share, FormattableString status)
    {
        _shown = true;
        ProgressRecord record = new(0, activity, status.ToString(CultureInfo.InvariantCulture)) { PercentComplete = (int)(100 * share) };
        if (share > 0)
        {
            record.SecondsRemaining = (int)Math.Ceiling(Stopwatch.GetElapsedTime(_started).TotalSeconds * (1 - share) / share);
        }

        cmdlet.WriteProgress(record);
    }

    /// <inheritdoc cref="Show"/>
    /// <summary>Shows how far the work is, if it is time to. Only for the pipeline thread.</summary>
    public void ShowIfDue(double share, FormattableString status)
    {
        if (IsDue())
        {
            Show(share, status);
        }
    }

    /// <summary>Takes the bar away.</summary>
    public void Dispose()
    {
        if (_shown)
        {
            cmdlet.WriteProgress(new ProgressRecord(0, activity, "done") { RecordType = ProgressRecordType.Completed });
        }
    }

    private bool IsDue()
    {
        long now = Stopwatch.GetTimestamp();
        long next = Interlocked.Read(ref _next);
        return now >= next && Interlocked.CompareExchange(ref _next, now + s_interval, next) == next;
    }
}
