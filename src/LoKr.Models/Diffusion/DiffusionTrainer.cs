using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Training;

namespace LoKr.Models.Diffusion;

/// <summary>Trains the adapters of a pipeline's UNet and text encoders.</summary>
public static class DiffusionTrainer
{
    /// <summary>Says what a run would do, without doing it.</summary>
    /// <exception cref="Core.Errors.LoKrException">What a run would throw before its first step.</exception>
    public static TrainingPlan Plan(StableDiffusionPipeline pipeline, ITrainingTask task, TrainingOptions options)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        return Trainer.Plan([.. pipeline.Models.Values], task, options);
    }

    /// <summary>
    /// Trains every model of the pipeline whose active adapter takes gradients, together and with one optimizer. The autoencoder is released
    /// first; images that are made on the way read it again and let go of it. The result is the pipeline's <see cref="StableDiffusionPipeline.LastTraining"/>.
    /// </summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="task">Data and loss, a <see cref="DiffusionTask"/>.</param>
    /// <param name="validation">Data to evaluate on, or null.</param>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="samples">Images to make on the way, or null.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Looked at before every batch and every step of an image.</param>
    /// <exception cref="Core.Errors.LoKrException">As for <see cref="Trainer"/>, and for images as for <see cref="ImageGenerator"/>.</exception>
    public static LoKrTrainingResult Run(
        StableDiffusionPipeline pipeline,
        ITrainingTask task,
        ITrainingTask? validation,
        TrainingOptions options,
        SampleImages? samples = null,
        Action<LoKrTrainingStep>? onStep = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        if (samples is not null)
        {
            FileSystem.CreateFolder(samples.Folder);
        }

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

/// <summary>Images that are made every so many steps of a training run, so that one sees what it learns.</summary>
/// <param name="Prompts">What they show.</param>
/// <param name="Every">Steps between them; the last step has them too.</param>
/// <param name="Folder">Folder that exists; files are named after step and prompt, <c>step-000100-1.png</c>.</param>
/// <param name="Options">How they are made; with a seed they differ by the training alone.</param>
public sealed record SampleImages(IReadOnlyList<string> Prompts, int Every, string Folder, ImageGenerationOptions Options)
{
    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>, or what is wrong with the options of the images.</exception>
    public void Validate()
    {
        if (Every < 1)
        {
            throw new LoKrException(ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument,
                string.Create(CultureInfo.InvariantCulture, $"SampleEvery is {Every}."), "It has to be at least 1.") { Target = nameof(Every) };
        }

        Options.Validate();
    }

    internal void MakeIfDue(StableDiffusionPipeline pipeline, LoKrTrainingStep step, CancellationToken cancellationToken)
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
