using LoKr.Core.Training;

namespace LoKr.Models.StableDiffusion.Training;

/// <summary>Trains the adapters of a pipeline's UNet and text encoders.</summary>
public static class DiffusionTrainer
{
    /// <summary>Says what a run would do, without doing it.</summary>
    /// <exception cref="Core.LoKrException">What a run would throw before its first step.</exception>
    public static TrainingPlan Plan(StableDiffusionPipeline pipeline, ITrainingTask task, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        return Trainer.Plan([.. pipeline.Models.Values], task, options);
    }

    /// <summary>
    /// Trains every model of the pipeline whose active adapter takes gradients, together and with one optimiser. The autoencoder is released
    /// first; pictures that are made on the way read it again and let go of it. The result is the pipeline's <see cref="StableDiffusionPipeline.LastTraining"/>.
    /// </summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="task">Data and loss, a <see cref="DiffusionTask"/>.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="samples">Pictures to make on the way, or null.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Looked at before every batch and every step of a picture.</param>
    /// <exception cref="Core.LoKrException">As for <see cref="Trainer"/>, and for pictures as for <see cref="PictureGenerator"/>.</exception>
    public static LoKrTrainingResult Run(
        StableDiffusionPipeline pipeline,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        SamplePictures? samples = null,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        pipeline.ReleaseVae();
        pipeline.LastTraining = Trainer.Run(
            [.. pipeline.Models.Values],
            task,
            validation,
            options,
            step =>
            {
                onStep?.Invoke(step);
                samples?.MakeIfDue(pipeline, step, cancellationToken);
            },
            cancellationToken);
        return pipeline.LastTraining;
    }
}
