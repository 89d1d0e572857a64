namespace LoKr.Core.Training;

/// <summary>
/// The learning rate by step, as transformers' <c>get_constant/linear/cosine_schedule_with_warmup</c>: the first step of a warm-up has
/// a learning rate of zero, and the last step of a run is one short of where the curve ends.
/// </summary>
public sealed class Schedule
{
    private readonly LearningRateSchedule _kind;
    private readonly double _learningRate;

    /// <summary>Creates a schedule.</summary>
    /// <param name="kind">Course after the warm-up.</param>
    /// <param name="learningRate">Highest learning rate.</param>
    /// <param name="warmupSteps">Steps in which it rises from zero.</param>
    /// <param name="totalSteps">Steps of the run.</param>
    public Schedule(LearningRateSchedule kind, double learningRate, int warmupSteps, int totalSteps)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(warmupSteps);
        (_kind, _learningRate, WarmupSteps, TotalSteps) = (kind, learningRate, warmupSteps, totalSteps);
    }

    /// <summary>Steps in which the learning rate rises.</summary>
    public int WarmupSteps { get; }

    /// <summary>Steps of the run.</summary>
    public int TotalSteps { get; }

    /// <summary>The schedule of a run; a warm-up ratio is rounded up to whole steps.</summary>
    public static Schedule For(TrainingOptions options, int totalSteps)
    {
        ArgumentNullException.ThrowIfNull(options);
        int warmup = options.WarmupSteps ?? (int)Math.Ceiling(options.WarmupRatio * totalSteps);
        return new Schedule(options.Schedule, options.LearningRate, warmup, totalSteps);
    }

    /// <summary>Learning rate of a step.</summary>
    /// <param name="index">Index of the step, from 0.</param>
    public double At(int index)
    {
        if (index < WarmupSteps)
        {
            return _learningRate * index / Math.Max(1, WarmupSteps);
        }

        double progress = (double)(index - WarmupSteps) / Math.Max(1, TotalSteps - WarmupSteps);
        return _kind switch
        {
            LearningRateSchedule.Linear => _learningRate * Math.Max(0, 1 - progress),
            LearningRateSchedule.Cosine => _learningRate * Math.Max(0, 0.5 * (1 + Math.Cos(Math.PI * progress))),
            _ => _learningRate,
        };
    }
}
