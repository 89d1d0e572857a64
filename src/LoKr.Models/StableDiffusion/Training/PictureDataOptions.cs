namespace LoKr.Models.StableDiffusion.Training;

/// <summary>How pictures become data to train on.</summary>
public sealed record PictureDataOptions
{
    /// <summary>Side of the square that pictures are cut to, in pixels; with buckets, of the square whose area they have at most.</summary>
    public int Resolution { get; init; } = 512;

    /// <summary>Whether pictures keep their shape as well as they can, in one of several sizes; otherwise the middle is cut out as a square.</summary>
    public bool AspectBuckets { get; init; }

    /// <summary>What happens to pictures that cannot be read.</summary>
    public UnreadableImage Unreadable { get; init; }

    /// <summary>What happens to pictures without a caption.</summary>
    public MissingCaption MissingCaption { get; init; }

    /// <summary>Folder of the latents that were computed; null for <c>.lokr-latents</c> in the folder of the pictures.</summary>
    public string? CachePath { get; init; }
}
