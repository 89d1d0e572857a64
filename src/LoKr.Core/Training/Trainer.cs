using LoKr.Core.Adapters;

namespace LoKr.Core.Training;

/// <summary>Trains an adapter. Everything happens on the calling thread; only batches of plain data are prepared on another.</summary>
public static class Trainer
{
    /// <summary>Says what a run would do, without doing it.</summary>
    public static TrainingPlan Plan(LoKrModel model, ITrainingTask task, TrainingOptions options) => throw new NotImplementedException();

    /// <summary>Trains and returns when done or canceled (<see cref="LoKrTrainingResult.StopReason"/>).</summary>
    public static LoKrTrainingResult Run(
        LoKrModel model,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default) => throw new NotImplementedException();
}
