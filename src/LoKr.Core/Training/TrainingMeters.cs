namespace LoKr.Core.Training;

/// <summary>Measures units per second over the last steps. Time between steps (evaluation, a slow reader) does not count.</summary>
internal sealed class Throughput
{
    private const int Window = 20;

    private readonly Queue<(long Units, TimeSpan Time)> _steps = new();
    private long _units;
    private TimeSpan _time;

    /// <summary>Mean over the window.</summary>
    public double PerSecond => _time > TimeSpan.Zero ? _units / _time.TotalSeconds : 0;

    /// <summary>Adds a step.</summary>
    public void Add(long units, TimeSpan time)
    {
        _steps.Enqueue((units, time));
        _units += units;
        _time += time;
        if (_steps.Count > Window)
        {
            (long oldUnits, TimeSpan oldTime) = _steps.Dequeue();
            _units -= oldUnits;
            _time -= oldTime;
        }
    }
}

/// <summary>Measures the peak working set of the process while this object lives, by a sample twenty times a second.</summary>
internal sealed class MemoryPeak : IDisposable
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(50);

    private readonly Timer _timer;
    private long _bytes = Environment.WorkingSet;

    public MemoryPeak() => _timer = new Timer(static state => ((MemoryPeak)state!).Sample(), this, s_interval, s_interval);

    /// <summary>The largest value up to now.</summary>
    public long Bytes
    {
        get
        {
            Sample();
            return Interlocked.Read(ref _bytes);
        }
    }

    public void Dispose() => _timer.Dispose();

    private void Sample()
    {
        long now = Environment.WorkingSet;
        long seen = Interlocked.Read(ref _bytes);
        while (now > seen)
        {
            long before = Interlocked.CompareExchange(ref _bytes, now, seen);
            if (before == seen)
            {
                return;
            }

            seen = before;
        }
    }
}
