using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Core.Training;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

public sealed partial class StartLoKrTrainingCommand
{
    /// <summary>Side in pixels of the square that pictures are scaled and cut to, a multiple of 8; with -AspectBucket of the square whose area they have.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int Resolution { get; set; } = 512;

    /// <summary>Keep the shape of pictures as well as several sizes allow, in place of cutting out a square.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public SwitchParameter AspectBucket { get; set; }

    /// <summary>What happens to pictures that cannot be read: Stop is an error that names the first, Skip leaves them out and warns.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public UnreadableImage UnreadableImage { get; set; }

    /// <summary>What happens to pictures without a caption: Stop is an error that names the first, Allow trains them with an empty one.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public MissingCaption MissingCaption { get; set; }

    /// <summary>Folder for the latents of the pictures, which are computed once; without it .lokr-latents in the folder of the pictures.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    [ValidateNotNullOrEmpty]
    public string? LatentCache { get; set; }

    /// <summary>Gamma of min-SNR weighting, usually 5; without it every timestep weighs alike.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double? MinSnrGamma { get; set; }

    /// <summary>Share of the pictures that are trained without their caption, for example 0.1.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double CaptionDropout { get; set; }

    /// <summary>What pictures that are made on the way show.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    [ValidateNotNullOrEmpty]
    public string[]? SamplePrompt { get; set; }

    /// <summary>Steps between pictures that are made on the way; the last step makes them too.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int SampleEvery { get; set; } = 100;

    /// <summary>Denoising steps of pictures that are made on the way.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int SampleSteps { get; set; } = 25;

    /// <summary>Folder for pictures that are made on the way; it is made if it is not there.</summary>
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
        PictureDataOptions pictures = new()
        {
            Resolution = Resolution,
            AspectBuckets = AspectBucket,
            Unreadable = UnreadableImage,
            MissingCaption = MissingCaption,
            CachePath = LatentCache is null ? null : ResolveNew(LatentCache),
        };
        DiffusionLossOptions loss = new() { MinSnrGamma = MinSnrGamma, CaptionDropout = CaptionDropout };
        SamplePictures? samples = Samples();
        ImageFolder[] folders = ReadFolders(Data, pictures);
        ImageFolder[] validation = ValidationData is null ? [] : ReadFolders(ValidationData, pictures);

        // Planned by the sizes alone: latents are computed, and their files written, only when the run is wanted.
        using DiffusionTask planned = new(
            Pipeline, [.. folders.SelectMany(folder => Models.Diffusion.LatentCache.Plan(folder, pictures))], loss, [.. folders.Concat(validation).SelectMany(folder => folder.Warnings)]);
        TrainingPlan plan = DiffusionTrainer.Plan(Pipeline, planned, options);
        Warn(plan.Warnings);
        if (Confirms(plan))
        {
            using DiffusionTask task = new(Pipeline, ComputeLatents(folders, pictures), loss);
            using DiffusionTask? evaluation = validation.Length == 0 ? null : new(Pipeline, ComputeLatents(validation, pictures), loss);
            if (samples is not null)
            {
                Directory.CreateDirectory(samples.Folder);
            }

            Run(Pipeline.Name, (report, token) => DiffusionTrainer.Run(Pipeline, task, evaluation, options, samples, report, token), result => Pipeline.LastTraining = result, onThisThread: false);
        }

        if (!ReportStep)
        {
            WriteObject(Pipeline);
        }
    }

    private SamplePictures? Samples()
    {
        if (SamplePrompt is null != SampleDestination is null)
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"Only -{(SamplePrompt is null ? nameof(SampleDestination) : nameof(SamplePrompt))} was given.", "Pictures on the way need -SamplePrompt and -SampleDestination.");
        }

        if (SamplePrompt is null)
        {
            return null;
        }

        bool square = !AspectBucket;
        SamplePictures samples = new(SamplePrompt, SampleEvery, ResolveNew(SampleDestination!), new PictureOptions
        {
            Steps = SampleSteps,
            Seed = Seed ?? 0,
            Width = square ? Resolution : null,
            Height = square ? Resolution : null,
        });
        samples.Validate();
        return samples;
    }

    private ImageFolder[] ReadFolders(object[] data, PictureDataOptions options)
    {
        PictureOptions.CheckSize(nameof(Resolution), Resolution);
        List<ImageFolder> folders = [];
        foreach (object item in data)
        {
            string path = (item is PSObject wrapped ? wrapped.BaseObject : item) switch
            {
                string text => text,
                FileSystemInfo info => info.FullName,
                object other => throw new LoKrException(ErrorIds.DataValueInvalid, LoKrErrorKind.InvalidArgument,
                    $"A {other.GetType().Name} is no folder of pictures.", "Give the path of a folder to train a Stable Diffusion pipeline.") { Target = other },
            };
            folders.AddRange(ResolveOne(path, literal: item is not string).Select(folder => ImageFolder.Read(folder, options, StopToken)));
        }

        return [.. folders];
    }

    private List<LatentRow> ComputeLatents(ImageFolder[] folders, PictureDataOptions options)
    {
        List<LatentRow> rows = [];
        foreach (ImageFolder folder in folders)
        {
            LatentsProgress progress = new(this, folder.Path);
            Models.Diffusion.LatentCache cache;
            try
            {
                cache = Models.Diffusion.LatentCache.Prepare(Pipeline, folder, options, progress.Show, StopToken);
            }
            finally
            {
                progress.Complete();
            }

            Warn(cache.Warnings);
            WriteVerbose(string.Create(CultureInfo.InvariantCulture,
                $"Latents of {cache.Rows.Count} pictures in {cache.Folder}: {cache.ComputedCount} computed, {cache.Rows.Count - cache.ComputedCount} read."));
            rows.AddRange(cache.Rows);
        }

        return rows;
    }
}
