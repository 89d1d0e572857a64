namespace LoKr.Core.Training;

/// <summary>Units a second over the last steps; time between steps (evaluation, a slow reader) does not count.</summary>
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
