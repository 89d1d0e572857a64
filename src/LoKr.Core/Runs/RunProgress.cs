using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>
/// The course of the loss, and the time that is left: from the time between the last steps, evaluations included. The first steps of a process
/// are slower and do not count.
/// </summary>
internal sealed class RunProgress
{
    private const int Window = 50;
    private const int Parts = 32;

    private readonly Queue<double> _ends = new();
    private readonly List<(double Sum, int Count)> _parts = [];
    private int _left;

    /// <summary>Seconds that are left; null until it means something.</summary>
    public double? SecondsRemaining => _ends.Count < 5 ? null : (_ends.Last() - _ends.Peek()) / (_ends.Count - 1) * _left;

    /// <summary>Mean loss of each part of the run.</summary>
    public IReadOnlyList<double> LossCurve => [.. _parts.Where(static part => part.Count > 0).Select(static part => part.Sum / part.Count)];

    /// <summary>Adds a step of this process.</summary>
    public void Add(LoKrTrainingStep step)
    {
        AddLoss(step);
        _left = step.TotalSteps - step.Step;
        _ends.Enqueue(step.Elapsed.TotalSeconds);
        if (_ends.Count > Window)
        {
            _ends.Dequeue();
        }
    }

    /// <summary>Adds the loss of a step.</summary>
    public void AddLoss(LoKrTrainingStep step)
    {
        int part = (int)((long)(step.Step - 1) * Math.Min(Parts, step.TotalSteps) / step.TotalSteps);
        while (_parts.Count <= part)
        {
            _parts.Add((0, 0));
        }

        _parts[part] = (_parts[part].Sum + step.Loss, _parts[part].Count + 1);
    }
}
