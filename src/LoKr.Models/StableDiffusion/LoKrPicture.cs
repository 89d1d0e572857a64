namespace LoKr.Models.StableDiffusion;

/// <summary>A picture that was made and written (<c>Invoke-LoKrModel</c>). Flat and serialisable; with these values it is made again.</summary>
public sealed record LoKrPicture
{
    /// <summary>Full path of the PNG.</summary>
    public required string Path { get; init; }

    /// <summary>What it shows.</summary>
    public required string Prompt { get; init; }

    /// <summary>What it should not show; null where none was given.</summary>
    public string? NegativePrompt { get; init; }

    /// <summary>Its seed.</summary>
    public required long Seed { get; init; }

    /// <summary>Denoising steps.</summary>
    public required int Steps { get; init; }

    /// <summary>Weight of the prompt.</summary>
    public required double Guidance { get; init; }

    /// <summary>Name of the scheduler.</summary>
    public required string Scheduler { get; init; }

    /// <summary>What active adapters were multiplied with.</summary>
    public required double AdapterScale { get; init; }

    /// <summary>Width in pixels.</summary>
    public required int Width { get; init; }

    /// <summary>Height in pixels.</summary>
    public required int Height { get; init; }

    /// <summary>Time it took; with several at once, its share.</summary>
    public required TimeSpan Elapsed { get; init; }
}
