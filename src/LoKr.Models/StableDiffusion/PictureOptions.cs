using LoKr.Core;
using LoKr.Models.StableDiffusion.Schedulers;

namespace LoKr.Models.StableDiffusion;

/// <summary>How pictures are made. Defaults are those of diffusers' pipeline.</summary>
public sealed record PictureOptions
{
    /// <summary>What width and height have to be multiples of.</summary>
    public const int SizeStep = 8;

    /// <summary>Denoising steps.</summary>
    public int Steps { get; init; } = 50;

    /// <summary>Weight of the prompt against the negative one (classifier-free guidance, Ho and Salimans, arXiv:2207.12598); 1 and less for none.</summary>
    public double Guidance { get; init; } = 7.5;

    /// <summary>What the picture should not show; null for nothing.</summary>
    public string? NegativePrompt { get; init; }

    /// <summary>Width in pixels; null for the size that the pipeline was trained on.</summary>
    public int? Width { get; init; }

    /// <summary>Height in pixels; null for the size that the pipeline was trained on.</summary>
    public int? Height { get; init; }

    /// <summary>Seed of the first picture; the next ones have the numbers that follow. Null draws one.</summary>
    public long? Seed { get; init; }

    /// <summary>Pictures to make.</summary>
    public int Count { get; init; } = 1;

    /// <summary>Pictures that are made at once; it changes nothing but speed and memory.</summary>
    public int BatchSize { get; init; } = 1;

    /// <summary>Another scheduler than the pipeline's own.</summary>
    public SchedulerKind? Scheduler { get; init; }

    /// <summary>What the contributions of all active adapters are multiplied with while the pictures are made.</summary>
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

    /// <summary>Throws for a width or height that is no positive multiple of 8.</summary>
    /// <param name="name">Name of the value, for the message.</param>
    /// <param name="size">The value in pixels; null is fine.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.ImageSizeInvalid"/>.</exception>
    public static void CheckSize(string name, int? size)
    {
        if (size is int given && (given < SizeStep || given % SizeStep != 0))
        {
            int near = Math.Max(SizeStep, (int)Math.Round(given / (double)SizeStep) * SizeStep);
            throw new LoKrException(ErrorIds.ImageSizeInvalid, LoKrErrorKind.InvalidArgument,
                $"{name} is {given}, which is no multiple of {SizeStep}.", $"Use {near}.") { Target = given };
        }
    }

    private static void Require(bool condition, string name, IFormattable value, string allowed)
    {
        if (!condition)
        {
            throw new LoKrException(ErrorIds.GenerationOptionInvalid, LoKrErrorKind.InvalidArgument,
                $"{name} is {value.ToString(null, System.Globalization.CultureInfo.InvariantCulture)}.", $"It has to be {allowed}.") { Target = name };
        }
    }
}
