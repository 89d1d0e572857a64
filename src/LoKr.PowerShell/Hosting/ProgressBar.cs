using System.Diagnostics;
using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Distributed;

namespace LoKr.PowerShell.Hosting;

/// <summary>
/// The progress bar of one activity of one command, with the time that is left. Its id is its own, so that commands that run at the same
/// time have bars beside each other. Disposing takes it away.
/// </summary>
/// <param name="cmdlet">The command.</param>
/// <param name="activity">What is done, in words.</param>
/// <param name="parent">The bar of the activity that this one is a part of.</param>
internal sealed class ProgressBar(Cmdlet cmdlet, string activity, ProgressBar? parent = null) : IDisposable
{
    // A person reads no faster, and hosts draw slowly.
    private static readonly long s_interval = Stopwatch.Frequency / 5;

    // Of several processes that work together the first one shows how far they are.
    private readonly bool _isQuiet = Launch.Current is { Rank: > 0 };

    private readonly int _id = Random.Shared.Next(1, int.MaxValue);
    private readonly RemainingTime _remaining = new();
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
    /// <param name="share">The share that is done, from 0 to 1; null where it is not known.</param>
    /// <param name="status">The state in words; numbers are written invariantly.</param>
    public void Show(double? share, FormattableString status)
    {
        if (_isQuiet)
        {
            return;
        }

        _shown = true;
        cmdlet.WriteProgress(new ProgressRecord(_id, activity, status.ToString(CultureInfo.InvariantCulture))
        {
            ParentActivityId = parent?._id ?? -1,
            PercentComplete = share is double known ? (int)(100 * known) : -1,
            SecondsRemaining = share is double done ? _remaining.Estimate(done, Stopwatch.GetElapsedTime(0)) ?? -1 : -1,
        });
    }

    /// <inheritdoc cref="Show"/>
    /// <summary>Shows how far the work is, if it is time to. Only for the pipeline thread.</summary>
    public void ShowIfDue(double? share, FormattableString status)
    {
        if (IsDue())
        {
            Show(share, status);
        }
    }

    /// <summary>Takes the bar away until it is shown again.</summary>
    public void Hide()
    {
        if (_shown)
        {
            _shown = false;
            cmdlet.WriteProgress(new ProgressRecord(_id, activity, "done") { ParentActivityId = parent?._id ?? -1, RecordType = ProgressRecordType.Completed });
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Hide();

    private bool IsDue()
    {
        long now = Stopwatch.GetTimestamp();
        long next = Interlocked.Read(ref _next);
        return now >= next && Interlocked.CompareExchange(ref _next, now + s_interval, next) == next;
    }
}

/// <summary>Estimates how long work will still take, from its speed since the first report: what comes before that is warm-up.</summary>
internal sealed class RemainingTime
{
    // With less to go by, the estimate jumps.
    private const int LeastReports = 4;
    private static readonly TimeSpan s_least = TimeSpan.FromSeconds(2);

    private double _firstShare;
    private TimeSpan _firstTime;
    private int _reports;

    /// <summary>The seconds that are left, or null as long as an estimate means nothing.</summary>
    /// <param name="share">The share that is done, from 0 to 1.</param>
    /// <param name="time">The time, from any start.</param>
    public int? Estimate(double share, TimeSpan time)
    {
        // Less than before: the same bar shows the next piece of work.
        if (_reports++ == 0 || share < _firstShare)
        {
            (_firstShare, _firstTime, _reports) = (share, time, 1);
        }

        double done = share - _firstShare;
        TimeSpan taken = time - _firstTime;
        return _reports < LeastReports || taken < s_least || done <= 0 ? null : (int)Math.Min(int.MaxValue, Math.Ceiling(taken.TotalSeconds * (1 - share) / done));
    }
}
