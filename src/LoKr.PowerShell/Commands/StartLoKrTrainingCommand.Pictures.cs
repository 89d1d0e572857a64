using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

public sealed partial class StartLoKrTrainingCommand
{
    /// <summary>Side in pixels of the square that images are scaled and cut to, a multiple of 8; with -AspectBucket of the square whose area they have.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int Resolution { get; set; } = 512;

    /// <summary>Keep the shape of images as well as several sizes allow, in place of cutting out a square.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public SwitchParameter AspectBucket { get; set; }

    /// <summary>What happens to images that cannot be read: Stop is an error that names the first, Skip leaves them out and warns.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public UnreadableImage UnreadableImage { get; set; }

    /// <summary>What happens to images without a caption: Stop is an error that names the first, Allow trains them with an empty one.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public MissingCaption MissingCaption { get; set; }

    /// <summary>Folder for the latents of the images, which are computed once; without it .lokr-latents in the folder of the images.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    [ValidateNotNullOrEmpty]
    public string? LatentCache { get; set; }

    /// <summary>Gamma of min-SNR weighting, usually 5; without it every timestep weighs alike.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double? MinSnrGamma { get; set; }

    /// <summary>Share of the images that are trained without their caption, for example 0.1.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double CaptionDropout { get; set; }

    /// <summary>Prompts of images that are generated during training.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    [ValidateNotNullOrEmpty]
    public string[]? SamplePrompt { get; set; }

    /// <summary>Steps between images that are generated during training; the last step generates them too.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int SampleEvery { get; set; } = 100;

    /// <summary>Denoising steps of images that are generated during training.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int SampleSteps { get; set; } = 25;

    /// <summary>Folder for images that are generated during training; it is created if it does not exist.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    [ValidateNotNullOrEmpty]
    public string? SampleDestination { get; set; }

    private void TrainOnPictures()
    {
        if (Pipeline.AdapterNames.Count == 0 && IsRehearsal())
        {
            ShouldProcess(Pipeline.Name, "Train the adapters");
            WriteObject(Pipeline);
            return;
        }

        EnsureRuntime();
        TrainingOptions options = Options();
        ImageTraining training = ImageTraining.Read(Pipeline, Folders(Data), Folders(ValidationData ?? []), ImageOptions(), StopToken);
        TrainingPlan plan = training.Plan(options);
        Warn(plan.Warnings);
        if (Confirms(plan))
        {
            ComputeLatents(training);
            Run(Pipeline.Name, (report, token) => training.Run(options, report, token), result => Pipeline.LastTraining = result, onThisThread: false);
        }

        if (!ReportStep)
        {
            WriteObject(Pipeline);
        }
    }

    private ImageTrainingOptions ImageOptions() => new()
    {
        Images = new ImageDataOptions
        {
            Resolution = Resolution,
            AspectBuckets = AspectBucket,
            Unreadable = UnreadableImage,
            MissingCaption = MissingCaption,
            CachePath = LatentCache is null ? null : ResolveNew(LatentCache),
        },
        Loss = new DiffusionLossOptions { MinSnrGamma = MinSnrGamma, CaptionDropout = CaptionDropout },
        Samples = Samples(),
    };

    private SampleImages? Samples()
    {
        if (SamplePrompt is null != SampleDestination is null)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"Only -{(SamplePrompt is null ? nameof(SampleDestination) : nameof(SamplePrompt))} was given.", "Images during training need -SamplePrompt and -SampleDestination.");
        }

        return SamplePrompt is null
            ? null
            : new SampleImages(SamplePrompt, SampleEvery, ResolveNew(SampleDestination!), new ImageGenerationOptions { Steps = SampleSteps, Seed = Seed ?? 0 });
    }

    private string[] Folders(object[] data) => [.. data.SelectMany(item => (item is PSObject wrapped ? wrapped.BaseObject : item) switch
    {
        string text => ResolveOne(text, literal: false),
        FileSystemInfo info => ResolveOne(info.FullName, literal: true),
        object other => throw new LoKrException(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument,
            $"A {other.GetType().Name} is not a folder of images.", "Give the path of a folder to train a Stable Diffusion pipeline.") { Target = other },
    })];

    private void ComputeLatents(ImageTraining training)
    {
        LatentsProgress progress = new(this);
        try
        {
            foreach (Models.Diffusion.LatentCache cache in training.ComputeLatents(progress.Show, StopToken))
            {
                Warn(cache.Warnings);
                WriteVerbose(string.Create(CultureInfo.InvariantCulture,
                    $"Latents of {cache.Rows.Count} images in {cache.Folder}: {cache.ComputedCount} computed, {cache.Rows.Count - cache.ComputedCount} read."));
            }
        }
        finally
        {
            progress.Complete();
        }
    }
}
