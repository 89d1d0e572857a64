using System.Globalization;
using System.Management.Automation;
using LoKr.Core.Errors;
using LoKr.Models.Diffusion;
using LoKr.PowerShell.Hosting;

namespace LoKr.PowerShell.Commands;

public sealed partial class InvokeLoKrModelCommand
{
    private static readonly PictureOptions s_pictures = new();

    // Pictures of this call, over all prompts: each file after the first has its number in its name.
    private int _pictureCount;

    /// <summary>The Stable Diffusion pipeline.</summary>
    [Parameter(Mandatory = true, Position = 0, ParameterSetName = PictureSet)]
    [ValidateNotNull]
    public StableDiffusionPipeline Pipeline { get; set; } = null!;

    /// <summary>PNG file to write; the second picture is written to NAME-2.png, and so on.</summary>
    [Parameter(Mandatory = true, ParameterSetName = PictureSet)]
    [ValidateNotNullOrEmpty]
    public string Destination { get; set; } = "";

    /// <summary>Denoising steps.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int Steps { get; set; } = s_pictures.Steps;

    /// <summary>Weight of the prompt against the negative one (classifier-free guidance); 1 and less for none.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double Guidance { get; set; } = s_pictures.Guidance;

    /// <summary>What the pictures should not show.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public string? NegativePrompt { get; set; }

    /// <summary>Width in pixels, a multiple of 8; without it the size that the pipeline was trained on.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int? Width { get; set; }

    /// <summary>Height in pixels, a multiple of 8; without it the size that the pipeline was trained on.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public int? Height { get; set; }

    /// <summary>Pictures of each prompt.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    [ValidateRange(1, int.MaxValue)]
    public int Count { get; set; } = 1;

    /// <summary>Scheduler in place of the pipeline's own: DDIM, PNDM, Euler or DDPM.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public SchedulerKind? Scheduler { get; set; }

    /// <summary>What the contributions of active adapters are multiplied with, for these pictures only.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public double AdapterScale { get; set; } = 1;

    /// <summary>Replace files that are there.</summary>
    [Parameter(ParameterSetName = PictureSet)]
    public SwitchParameter Force { get; set; }

    private void MakePictures(string prompt)
    {
        PictureOptions options = PictureOptions();
        string[] files = [.. Enumerable.Range(_pictureCount + 1, Count).Select(FileName)];
        _pictureCount += Count;
        if (!ShouldProcess(string.Join(", ", files), $"Make {(Count == 1 ? "a picture" : $"{Count} pictures")} of '{prompt}'"))
        {
            return;
        }

        CheckFiles(files);
        EnsureRuntime();
        PictureProgress progress = new(this, prompt);
        int index = 0;
        try
        {
            foreach (GeneratedPicture picture in PictureGenerator.Generate(Pipeline, prompt, options, progress.Show, StopToken))
            {
                using (picture)
                {
                    PictureFile.WritePng(files[index], picture.Pixels);
                    WriteObject(Describe(files[index], prompt, options, picture));
                    index++;
                }
            }
        }
        finally
        {
            progress.Complete();
        }
    }

    private PictureOptions PictureOptions() => new()
    {
        Steps = Steps,
        Guidance = Guidance,
        NegativePrompt = NegativePrompt,
        Width = Width,
        Height = Height,
        Seed = Seed,
        Count = Count,
        BatchSize = MyInvocation.BoundParameters.ContainsKey(nameof(BatchSize)) ? BatchSize : 1,
        Scheduler = Scheduler,
        AdapterScale = AdapterScale,
    };

    private string FileName(int number)
    {
        string full = ResolveNew(Destination);
        if (!string.Equals(Path.GetExtension(full), ".png", StringComparison.OrdinalIgnoreCase))
        {
            throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, $"'{Destination}' is no name of a PNG file.", "End it with .png.") { Target = Destination };
        }

        return number == 1
            ? full
            : Path.Combine(Path.GetDirectoryName(full)!, string.Create(CultureInfo.InvariantCulture, $"{Path.GetFileNameWithoutExtension(full)}-{number}{Path.GetExtension(full)}"));
    }

    private void CheckFiles(string[] files)
    {
        if (Path.GetDirectoryName(files[0]) is string folder && !Directory.Exists(folder))
        {
            throw new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound, $"There is no folder '{folder}'.", "Make it first.") { Target = folder };
        }

        if (!Force && files.FirstOrDefault(Path.Exists) is string taken)
        {
            throw new LoKrException(ErrorIds.DestinationExists, LoKrErrorKind.AlreadyExists, $"'{taken}' exists.", "Choose another name, or add -Force to replace it.") { Target = taken };
        }
    }

    private static LoKrPicture Describe(string file, string prompt, PictureOptions options, GeneratedPicture picture) => new()
    {
        Path = file,
        Prompt = prompt,
        NegativePrompt = options.NegativePrompt,
        Seed = picture.Seed,
        Steps = options.Steps,
        Guidance = options.Guidance,
        Scheduler = picture.Scheduler,
        AdapterScale = options.AdapterScale,
        Width = picture.Width,
        Height = picture.Height,
        Elapsed = picture.Elapsed,
    };
}
