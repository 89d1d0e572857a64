using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;

namespace LoKr.Models.Diffusion;

/// <summary>
/// Training of a pipeline's adapters on folders of images with captions. The plan needs the sizes of the images alone; latents are computed, and
/// their files written, only for a run.
/// </summary>
public sealed class ImageTraining
{
    private readonly StableDiffusionPipeline _pipeline;
    private readonly ImageTrainingOptions _options;
    private readonly IReadOnlyList<ImageFolder> _training;
    private readonly IReadOnlyList<ImageFolder> _validation;
    private readonly Dictionary<ImageFolder, LatentCache> _latents = [];

    private ImageTraining(
        StableDiffusionPipeline pipeline, ImageTrainingOptions options, IReadOnlyList<ImageFolder> training, IReadOnlyList<ImageFolder> validation) =>
        (_pipeline, _options, _training, _validation) = (pipeline, options, training, validation);

    /// <summary>Checks the options and lists the folders: captions, and the header of every image.</summary>
    /// <param name="pipeline">The pipeline; at least one of its models has an adapter when the training is planned or run.</param>
    /// <param name="folders">Folders of images to train on, see <see cref="ImageFolder"/>.</param>
    /// <param name="validationFolders">Folders of images to evaluate on; none for no evaluation.</param>
    /// <param name="options">Image sizes, loss, and images to generate during training.</param>
    /// <param name="cancellationToken">Checked before every image.</param>
    /// <exception cref="Core.Errors.LoKrException">
    /// <see cref="Core.Errors.ErrorIds.TrainingOptionInvalid"/>, <see cref="Core.Errors.ErrorIds.ImageSizeInvalid"/>, or what <see cref="ImageFolder.Read"/> throws.
    /// </exception>
    public static ImageTraining Read(
        StableDiffusionPipeline pipeline,
        IEnumerable<string> folders,
        IEnumerable<string>? validationFolders = null,
        ImageTrainingOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipeline);
        ArgumentNullException.ThrowIfNull(folders);
        ImageTrainingOptions checkedOptions = options ?? new ImageTrainingOptions();
        checkedOptions.Validate();
        return new ImageTraining(pipeline, checkedOptions, ReadAll(folders), ReadAll(validationFolders ?? []));

        ImageFolder[] ReadAll(IEnumerable<string> paths) => [.. paths.Select(path => ImageFolder.Read(path, checkedOptions.Images, cancellationToken))];
    }

    /// <summary>Describes a run without computing latents or training.</summary>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <exception cref="Core.Errors.LoKrException">As for <see cref="DiffusionTrainer.Plan"/>.</exception>
    public TrainingPlan Plan(TrainingOptions options)
    {
        LatentRow[] rows = [.. _training.SelectMany(folder => LatentCache.Plan(folder, _options.Images))];
        using DiffusionTask task = new(_pipeline, rows, _options.Loss, [.. _training.Concat(_validation).SelectMany(folder => folder.Warnings)]);
        return DiffusionTrainer.Plan(_pipeline, task, options);
    }

    /// <summary>Computes the latents that are not cached yet. A run does so as well; a separate call reports progress and what was found.</summary>
    /// <param name="onImage">Called after every image, on this thread.</param>
    /// <param name="cancellationToken">Checked before every image; latents that are computed stay cached.</param>
    /// <returns>The cache of each folder, of those to evaluate on after those to train on.</returns>
    /// <exception cref="Core.Errors.LoKrException">As for <see cref="LatentCache.Prepare"/>.</exception>
    public IReadOnlyList<LatentCache> ComputeLatents(Action<LatentProgress>? onImage = null, CancellationToken cancellationToken = default)
    {
        foreach (ImageFolder folder in _training.Concat(_validation).Where(folder => !_latents.ContainsKey(folder)))
        {
            _latents.Add(folder, LatentCache.Prepare(_pipeline, folder, _options.Images, onImage, cancellationToken));
        }

        return [.. _training.Concat(_validation).Select(folder => _latents[folder])];
    }

    /// <summary>Trains, as <see cref="DiffusionTrainer"/> does.</summary>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch and every denoising step.</param>
    /// <exception cref="Core.Errors.LoKrException">As for <see cref="LatentCache.Prepare"/> and <see cref="DiffusionTrainer"/>.</exception>
    public LoKrTrainingResult Run(TrainingOptions options, Action<LoKrTrainingStep>? onStep = null, CancellationToken cancellationToken = default) =>
        Run(options, null, null, onStep, cancellationToken);

    /// <summary>Trains in a run folder, as <see cref="RunRecorder.Record"/> does.</summary>
    /// <param name="options">Steps, learning rate and so on.</param>
    /// <param name="run">The run folder; null for a run in memory.</param>
    /// <param name="onOpen">Gets the recorder of the folder before the first step.</param>
    /// <param name="onStep">Called after every step, on this thread.</param>
    /// <param name="cancellationToken">Checked before every batch and every denoising step.</param>
    /// <exception cref="Core.Errors.LoKrException">
    /// As for <see cref="LatentCache.Prepare"/>, <see cref="DiffusionTrainer"/> and <see cref="RunRecorder.Record"/>.
    /// </exception>
    public LoKrTrainingResult Run(
        TrainingOptions options, RunOptions? run, Action<RunRecorder>? onOpen, Action<LoKrTrainingStep>? onStep = null, CancellationToken cancellationToken = default)
    {
        ComputeLatents(null, cancellationToken);
        using DiffusionTask task = TaskOn(_training);
        using DiffusionTask? validation = _validation.Count == 0 ? null : TaskOn(_validation);
        return RunRecorder.Record(run, _pipeline, task, validation, options, Train, onOpen);

        LoKrTrainingResult Train(ITrainingJournal? journal) =>
            DiffusionTrainer.Run(_pipeline, task, validation, options, journal, _options.SizedSamples, onStep, cancellationToken);
    }

    private DiffusionTask TaskOn(IEnumerable<ImageFolder> folders) =>
        new(_pipeline, [.. folders.SelectMany(folder => _latents[folder].Rows)], _options.Loss);
}

/// <summary>Options of a training on images, beside those of every training.</summary>
public sealed record ImageTrainingOptions
{
    /// <summary>Size of the images, and what to do about those that cannot be used.</summary>
    public ImageDataOptions Images { get; init; } = new();

    /// <summary>The loss.</summary>
    public DiffusionLossOptions Loss { get; init; } = new();

    /// <summary>Images to generate during training, or null. Without a width or height they are squares of the training resolution, with buckets of the pipeline's own size.</summary>
    public SampleImages? Samples { get; init; }

    internal SampleImages? SizedSamples => Images.AspectBuckets || Samples is null ? Samples : Samples with
    {
        Options = Samples.Options with { Width = Samples.Options.Width ?? Images.Resolution, Height = Samples.Options.Height ?? Images.Resolution },
    };

    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="Core.Errors.LoKrException"><see cref="Core.Errors.ErrorIds.TrainingOptionInvalid"/>, <see cref="Core.Errors.ErrorIds.ImageSizeInvalid"/> or <see cref="Core.Errors.ErrorIds.GenerationOptionInvalid"/>.</exception>
    public void Validate()
    {
        ImageGenerationOptions.CheckSize(nameof(Images.Resolution), Images.Resolution);
        Loss.Validate();
        Samples?.Validate();
    }
}
