using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Inference;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Binding;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Base;

/// <summary>Base of the cmdlets that can generate images: steps, guidance, size, scheduler and files.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class ImageGenerationCommand : LoKrCommand
{
    /// <summary>Parameter set of generating images.</summary>
    protected const string ImageSet = "Picture";

    private static readonly ImageGenerationOptions s_defaults = new();

    // One for each destination, over all its prompts, so that every file has a number of its own.
    private readonly Dictionary<string, ImageSeries> _series = new(StringComparer.Ordinal);

    /// <summary>PNG file to write; the second image is written to NAME-2.png, and so on.</summary>
    [Parameter(Mandatory = true, ParameterSetName = ImageSet, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Denoising steps.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public int Steps { get; set; } = s_defaults.Steps;

    /// <summary>Weight of the prompt against the negative prompt (classifier-free guidance); 1 or less turns guidance off.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public double Guidance { get; set; } = s_defaults.Guidance;

    /// <summary>Description of the content that the images should not have.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public string? NegativePrompt { get; set; }

    /// <summary>Width in pixels, a multiple of 8. The default is the size that the pipeline was trained on.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public int? Width { get; set; }

    /// <summary>Height in pixels, a multiple of 8. The default is the size that the pipeline was trained on.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public int? Height { get; set; }

    /// <summary>Number of images for each prompt.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [ValidateRange(1, int.MaxValue)]
    public int Count { get; set; } = 1;

    /// <summary>Scheduler instead of the pipeline's own: DDIM, PNDM, Euler or DDPM.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public SchedulerKind? Scheduler { get; set; }

    /// <summary>Strength of the active adapters, for these images only.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public double AdapterScale { get; set; } = 1;

    /// <summary>Replaces existing files.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    public SwitchParameter Force { get; set; }

    /// <summary>Generates the images of a prompt, and writes a record of each when its file is there.</summary>
    /// <param name="pipeline">The pipeline.</param>
    /// <param name="prompt">Description of the images.</param>
    /// <param name="seed">Seed of the first image, or null for a random one.</param>
    /// <param name="batchSize">Number of images that are generated at once.</param>
    /// <param name="cut">Gets the prompts that are cut; the negative one only once.</param>
    private protected void GenerateImages(StableDiffusionPipeline pipeline, string prompt, long? seed, int batchSize, ICollection<CutLength> cut)
    {
        string destination = Paths.New(Destination);
        if (!_series.TryGetValue(destination, out ImageSeries? series))
        {
            _series.Add(destination, series = new ImageSeries(destination, Force));
        }

        IReadOnlyList<string> files = series.Reserve(Count);
        if (!ShouldProcess(string.Join(", ", files), $"Generate {(Count == 1 ? "an image" : $"{Count} images")} of '{prompt}'"))
        {
            return;
        }

        EnsureRuntime();
        string[] prompts = NegativePrompt is not null && cut.Count == 0 ? [prompt, NegativePrompt] : [prompt];
        foreach (CutText text in prompts.Select(pipeline.Measure).Where(static text => text.IsCut))
        {
            cut.Add(CutLength.Of(text));
        }

        ImageGenerationOptions options = new()
        {
            Steps = Steps,
            Guidance = Guidance,
            NegativePrompt = NegativePrompt,
            Width = Width,
            Height = Height,
            Seed = seed,
            BatchSize = batchSize,
            Scheduler = Scheduler,
            AdapterScale = AdapterScale,
        };
        using ProgressBar bar = new(this, $"Generating an image of '{prompt}'");
        foreach (LoKrPicture image in series.Generate(pipeline, prompt, files, options, step => Show(step, bar), StopToken))
        {
            WriteObject(image);
        }
    }

    private static void Show(DenoisingStep step, ProgressBar bar)
    {
        string image = step.ImageCount == 1 ? "" : $"image {step.Image}/{step.ImageCount}, ";
        bar.ShowIfDue((step.Image - 1 + ((double)step.Step / step.StepCount)) / step.ImageCount, $"{image}step {step.Step}/{step.StepCount}");
    }
}

/// <summary>Base of the cmdlets that can train on images: their size, captions and latents, the loss, and sample images.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class ImageTrainingCommand : RecordedTrainingCommand
{
    /// <summary>Parameter set of training on images.</summary>
    protected const string ImageSet = "Picture";

    /// <summary>Parameter set of training in a job, on texts or images.</summary>
    protected const string JobSet = "Job";

    /// <summary>Side in pixels of the square that images are scaled and cropped to, a multiple of 8. With -AspectBucket it is the side of the square that has their area.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public int Resolution { get; set; } = 512;

    /// <summary>Preserves the shape of images as well as several sizes allow, instead of cropping them to a square.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public SwitchParameter AspectBucket { get; set; }

    /// <summary>Treatment of images that cannot be read: Stop is an error that names the first one, Skip leaves them out and warns.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public UnreadableImage UnreadableImage { get; set; }

    /// <summary>Treatment of images without a caption: Stop is an error that names the first one, Allow trains them with an empty caption.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public MissingCaption MissingCaption { get; set; }

    /// <summary>Folder for the latents of the images, which are computed once; without it .lokr-latents in the folder of the images.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(FolderCompleter))]
    public string? LatentCache { get; set; }

    /// <summary>Gamma of min-SNR weighting, usually 5; without it every timestep has the same weight.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public double? MinSnrGamma { get; set; }

    /// <summary>Share of the images that are trained without their caption, for example 0.1.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public double CaptionDropout { get; set; }

    /// <summary>Prompts of sample images that are generated during training.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    [ValidateNotNullOrEmpty]
    public string[]? SamplePrompt { get; set; }

    /// <summary>Steps between sample images; the last step generates them too.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public int SampleEvery { get; set; } = 100;

    /// <summary>Denoising steps of sample images.</summary>
    [Parameter(ParameterSetName = ImageSet)]
    [Parameter(ParameterSetName = JobSet)]
    public int SampleSteps { get; set; } = 25;

    /// <summary>Folder for sample images; it is created if it does not exist.</summary>
    [Parameter(ParameterSetName = ImageSet, ValueFromPipelineByPropertyName = true)]
    [Parameter(ParameterSetName = JobSet, ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    [ArgumentCompleter(typeof(FolderCompleter))]
    public string? SampleDestination { get; set; }

    /// <summary>Options with the values of these parameters.</summary>
    private protected ImageTrainingOptions ReadImageOptions() => new()
    {
        Images = new ImageDataOptions
        {
            Resolution = Resolution,
            AspectBuckets = AspectBucket,
            Unreadable = UnreadableImage,
            MissingCaption = MissingCaption,
            CachePath = LatentCache is null ? null : Paths.New(LatentCache),
        },
        Loss = new DiffusionLossOptions { MinSnrGamma = MinSnrGamma, CaptionDropout = CaptionDropout },
        Samples = ReadSampleOptions(),
    };

    /// <summary>Warnings about parameters that have no effect.</summary>
    private protected IEnumerable<string> IgnoredImageParameters() =>
        SamplePrompt is null ? Ignored($"without -{nameof(SamplePrompt)}", nameof(SampleEvery), nameof(SampleSteps)) : [];

    private SampleImages? ReadSampleOptions()
    {
        if (SamplePrompt is null != SampleDestination is null)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"Only -{(SamplePrompt is null ? nameof(SampleDestination) : nameof(SamplePrompt))} was given.", "Sample images need -SamplePrompt and -SampleDestination.");
        }

        return SamplePrompt is null
            ? null
            : new SampleImages(SamplePrompt, SampleEvery, Paths.New(SampleDestination!), new ImageGenerationOptions { Steps = SampleSteps, Seed = Seed ?? 0 });
    }
}
