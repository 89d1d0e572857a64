using System.Management.Automation;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

public sealed partial class InvokeLoKrModelCommand
{
    private static readonly ImageGenerationOptions s_images = new();

    // Over all prompts of this call: each file after the first has its number in its name.
    private ImageSeries? _series;

    /// <summary>The Stable Diffusion pipeline.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PictureSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>PNG file to write; the second image is written to NAME-2.png, and so on.</summary>
    [Parameter(Mandatory = true, ParameterSetName = PictureSet)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Denoising steps.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int Steps { get; set; } = s_images.Steps;

    /// <summary>Weight of the prompt against the negative one (classifier-free guidance); 1 and less for none.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double Guidance { get; set; } = s_images.Guidance;

    /// <summary>What the images should not show.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public string? NegativePrompt { get; set; }

    /// <summary>Width in pixels, a multiple of 8; without it the size that the pipeline was trained on.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int? Width { get; set; }

    /// <summary>Height in pixels, a multiple of 8; without it the size that the pipeline was trained on.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int? Height { get; set; }

    /// <summary>Images of each prompt.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    [ValidateRange(1, int.MaxValue)]
    public int Count { get; set; } = 1;

    /// <summary>Scheduler in place of the pipeline's own: DDIM, PNDM, Euler or DDPM.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public SchedulerKind? Scheduler { get; set; }

    /// <summary>What the contributions of active adapters are multiplied with, for these images only.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double AdapterScale { get; set; } = 1;

    /// <summary>Replace files that are there.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public SwitchParameter Force { get; set; }

    private void MakePictures(string prompt)
    {
        _series ??= new ImageSeries(ResolveNew(Destination), Force);
        IReadOnlyList<string> files = _series.Reserve(Count);
        if (!ShouldProcess(string.Join(", ", files), $"Make {(Count == 1 ? "an image" : $"{Count} images")} of '{prompt}'"))
        {
            return;
        }

        EnsureRuntime();
        PictureProgress progress = new(this, prompt);
        try
        {
            foreach (LoKrPicture picture in _series.Generate(Pipeline, prompt, files, ImageOptions(), progress.Show, StopToken))
            {
                WriteObject(picture);
            }
        }
        finally
        {
            progress.Complete();
        }
    }

    private ImageGenerationOptions ImageOptions() => new()
    {
        Steps = Steps,
        Guidance = Guidance,
        NegativePrompt = NegativePrompt,
        Width = Width,
        Height = Height,
        Seed = Seed,
        BatchSize = MyInvocation.BoundParameters.ContainsKey(nameof(BatchSize)) ? BatchSize : 1,
        Scheduler = Scheduler,
        AdapterScale = AdapterScale,
    };
}
