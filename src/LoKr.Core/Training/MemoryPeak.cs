namespace LoKr.Core.Training;

/// <summary>The most memory that the process held while this object lives: its working set, looked at twenty times a second.</summary>
internal sealed class MemoryPeak : IDisposable
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(50);

    private readonly Timer _timer;
    private long _bytes = Environment.WorkingSet;

    public MemoryPeak() => _timer = new Timer(static state => ((MemoryPeak)state!).Look(), this, s_interval, s_interval);

    /// <summary>The largest value up to now.</summary>
    public long Bytes
    {
        get
        {
            Look();
            return Interlocked.Read(ref _bytes);
        }
    }

    public void Dispose() => _timer.Dispose();

    private void Look()
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
