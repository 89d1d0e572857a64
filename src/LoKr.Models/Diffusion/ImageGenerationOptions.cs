using System.Globalization;
using LoKr.Core.Errors;
using static TorchSharp.torch;

namespace LoKr.Models.Diffusion;

/// <summary>Options of image generation. Defaults are those of diffusers' pipeline.</summary>
public sealed record ImageGenerationOptions
{
    /// <summary>Width and height are multiples of this.</summary>
    public const int SizeStep = 8;

    /// <summary>Denoising steps.</summary>
    public int Steps { get; init; } = 50;

    /// <summary>Weight of the prompt against the negative one (classifier-free guidance, Ho and Salimans, arXiv:2207.12598); 1 and less for none.</summary>
    public double Guidance { get; init; } = 7.5;

    /// <summary>Negative prompt, or null.</summary>
    public string? NegativePrompt { get; init; }

    /// <summary>Width in pixels; null for the size that the pipeline was trained on.</summary>
    public int? Width { get; init; }

    /// <summary>Height in pixels; null for the size that the pipeline was trained on.</summary>
    public int? Height { get; init; }

    /// <summary>Seed of the first image; each further image has the next number. Null draws a seed.</summary>
    public long? Seed { get; init; }

    /// <summary>Number of images.</summary>
    public int Count { get; init; } = 1;

    /// <summary>Images that are generated at once; affects only speed and memory.</summary>
    public int BatchSize { get; init; } = 1;

    /// <summary>Scheduler in place of the pipeline's own.</summary>
    public SchedulerKind? Scheduler { get; init; }

    /// <summary>Factor of the contributions of all active adapters during generation.</summary>
    public double AdapterScale { get; init; } = 1;

    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ImageSizeInvalid"/> or <see cref="ErrorIds.GenerationOptionInvalid"/>.</exception>
    public void Validate()
    {
        CheckSize(nameof(Width), Width);
        CheckSize(nameof(Height), Height);
        Require(Steps >= 1, nameof(Steps), Steps, "at least 1");
        Require(double.IsFinite(Guidance) && Guidance >= 0, nameof(Guidance), Guidance, "0 or more");
        Require(Count >= 1, nameof(Count), Count, "at least 1");
        Require(BatchSize >= 1, nameof(BatchSize), BatchSize, "at least 1");
        Require(double.IsFinite(AdapterScale), nameof(AdapterScale), AdapterScale, "a finite number");
    }

    /// <summary>Throws for a width or height that is not a positive multiple of 8.</summary>
    /// <param name="name">Name of the value, for the message.</param>
    /// <param name="size">The value in pixels; null is fine.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ImageSizeInvalid"/>.</exception>
    public static void CheckSize(string name, int? size)
    {
        if (size is int given && (given < SizeStep || given % SizeStep != 0))
        {
            int near = Math.Max(SizeStep, (int)Math.Round(given / (double)SizeStep) * SizeStep);
            throw new LoKrException(ErrorIds.ImageSizeInvalid, LoKrErrorKind.InvalidArgument,
                $"{name} is {given}, which is not a multiple of {SizeStep}.", $"Use {near}.") { Target = given };
        }
    }

    private static void Require(bool condition, string name, IFormattable value, string allowed)
    {
        if (!condition)
        {
            throw new LoKrException(ErrorIds.GenerationOptionInvalid, LoKrErrorKind.InvalidArgument,
                $"{name} is {value.ToString(null, CultureInfo.InvariantCulture)}.", $"It has to be {allowed}.") { Target = name };
        }
    }
}

/// <summary>Progress of image generation.</summary>
/// <param name="Image">Number of the image, from 1; in a batch, of its first image.</param>
/// <param name="ImageCount">Number of all images.</param>
/// <param name="Step">Finished calls of the UNet.</param>
/// <param name="StepCount">Calls of the UNet for the image; more than the steps for PNDM.</param>
public readonly record struct DenoisingStep(int Image, int ImageCount, int Step, int StepCount);

/// <summary>A generated image with its seed.</summary>
/// <param name="Pixels">Bytes [height, width, 3] on the CPU, red first.</param>
/// <param name="Seed">Its own seed, which reproduces the image with the same options.</param>
/// <param name="Scheduler">Name of the scheduler.</param>
/// <param name="Elapsed">Time to generate it; in a batch, its share.</param>
public sealed record GeneratedImage(Tensor Pixels, long Seed, string Scheduler, TimeSpan Elapsed) : IDisposable
{
    /// <summary>Width in pixels.</summary>
    public int Width => (int)Pixels.shape[1];

    /// <summary>Height in pixels.</summary>
    public int Height => (int)Pixels.shape[0];

    /// <summary>Releases the pixels.</summary>
    public void Dispose() => Pixels.Dispose();
}

/// <summary>A generated image that was written to a file. Flat and serializable; its values reproduce the image.</summary>
public sealed record LoKrPicture
{
    /// <summary>Full path of the PNG.</summary>
    public required string Path { get; init; }

    /// <summary>Description of the image.</summary>
    public required string Prompt { get; init; }

    /// <summary>Negative prompt; null if none was given.</summary>
    public string? NegativePrompt { get; init; }

    /// <summary>Its seed.</summary>
    public required long Seed { get; init; }

    /// <summary>Denoising steps.</summary>
    public required int Steps { get; init; }

    /// <summary>Weight of the prompt.</summary>
    public required double Guidance { get; init; }

    /// <summary>Name of the scheduler.</summary>
    public required string Scheduler { get; init; }

    /// <summary>Factor of the contributions of active adapters.</summary>
    public required double AdapterScale { get; init; }

    /// <summary>Width in pixels.</summary>
    public required int Width { get; init; }

    /// <summary>Height in pixels.</summary>
    public required int Height { get; init; }

    /// <summary>Time to generate it; in a batch, its share.</summary>
    public required TimeSpan Elapsed { get; init; }
}
