using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Models.Diffusion;

/// <summary>Trains the adapters of a pipeline's UNet and text encoders.</summary>
public static class DiffusionTrainer
{
    /// <summary>Describes a run without training.</summary>
    /// <exception cref="Core.Errors.LoKrException">Every error of a run before its first step.</exception>
    public static TrainingPlan Plan(StableDiffusionPipeline pipeline, ITrainingTask task, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        return Trainer.Plan([.. pipeline.Models.Values], task, options);
    }

    /// <summary>
    /// Trains every model of the pipeline whose active adapter takes gradients, together and with one optimizer. The autoencoder is released
    /// first; images that are generated during training load it again and release it. The result is the pipeline's <see cref="StableDiffusionPipeline.LastTraining"/>.
    /// </summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="task">Data and loss, a <see cref="DiffusionTask"/>.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="samples">Images to generate during training, or null.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch and every denoising step.</param>
    /// <exception cref="Core.Errors.LoKrException">As for <see cref="Trainer"/>, and for images as for <see cref="ImageGenerator"/>.</exception>
    public static LoKrTrainingResult Run(
        StableDiffusionPipeline pipeline,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        SampleImages? samples = null,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default) => Run(pipeline, task, validation, options, null, samples, onStep, cancellationToken);

    /// <summary>Trains as the other method does, with a journal that follows the run, so that it can be continued later.</summary>
    /// <inheritdoc cref="Run(StableDiffusionPipeline, ITrainingTask, ITrainingTask, TrainingOptions, SampleImages, Action{LoKrTrainingStep}, CancellationToken)"/>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="task">Data and loss, a <see cref="DiffusionTask"/>.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="journal">Follows the run; null for none.</param>
    /// <param name="samples">Images to generate during training, or null.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch and every denoising step.</param>
    public static LoKrTrainingResult Run(
        StableDiffusionPipeline pipeline,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        ITrainingJournal? journal,
        SampleImages? samples = null,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(options);
        if (options.Workers is { IsFirst: false })
        {
            samples = null;
        }

        if (samples is not null)
        {
            FileSystem.CreateFolder(samples.Folder);
        }

        pipeline.ReleaseVae();
        LoKrModel[] models = [.. pipeline.Models.Values];
        LoKrTrainingResult?[] before = [.. models.Select(static model => model.LastTraining)];
        try
        {
            return Trainer.Run(
                models,
                task,
                validation,
                options,
                journal,
                step =>
                {
                    onStep?.Invoke(step);
                    samples?.GenerateIfDue(pipeline, step, cancellationToken);
                },
                cancellationToken);
        }
        finally
        {
            // A run that diverges throws, and leaves its result on the models that it trained.
            if (models.Where((model, index) => !ReferenceEquals(model.LastTraining, before[index])).FirstOrDefault() is LoKrModel trained)
            {
                pipeline.LastTraining = trained.LastTraining;
            }
        }
    }
}

/// <summary>Images that are generated at intervals during training, to show what the adapters have learned.</summary>
/// <param name="Prompts">Descriptions of the images.</param>
/// <param name="Every">Steps between them; the last step generates them too.</param>
/// <param name="Folder">Folder, created if it does not exist; files are named after step and prompt, <c>step-000100-1.png</c>.</param>
/// <param name="Options">Steps, size, seed and so on; with a seed the images differ only by the training.</param>
public sealed record SampleImages(IReadOnlyList<string> Prompts, int Every, string Folder, ImageGenerationOptions Options)
{
    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>, or the errors of <see cref="ImageGenerationOptions.Validate"/>.</exception>
    public void Validate()
    {
        if (Every < 1)
        {
            throw new LoKrException(ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument,
                string.Create(CultureInfo.InvariantCulture, $"The interval of sample images is {Every} steps."), "It has to be at least 1.") { Target = nameof(Every) };
        }

        Options.Validate();
    }

    internal void GenerateIfDue(StableDiffusionPipeline pipeline, LoKrTrainingStep step, CancellationToken cancellationToken)
    {
        if (step.Step % Every != 0 && step.Step != step.TotalSteps)
        {
            return;
        }

        bool held = pipeline.IsVaeLoaded;
        try
        {
            for (int i = 0; i < Prompts.Count; i++)
            {
                foreach (GeneratedImage image in ImageGenerator.Generate(pipeline, Prompts[i], Options, null, cancellationToken))
                {
                    using (image)
                    {
                        string number = Options.Count == 1
                            ? string.Create(CultureInfo.InvariantCulture, $"{i + 1}")
                            : string.Create(CultureInfo.InvariantCulture, $"{i + 1}-{image.Seed}");
                        ImageFile.WritePng(Path.Combine(Folder, string.Create(CultureInfo.InvariantCulture, $"step-{step.Step:D6}-{number}.png")), image.Pixels);
                    }
                }
            }
        }
        finally
        {
            if (!held)
            {
                pipeline.ReleaseVae();
            }
        }
    }
}
