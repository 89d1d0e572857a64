namespace LoKr.Models.StableDiffusion.Training;

/// <summary>What happens to a picture that cannot be read.</summary>
public enum UnreadableImage
{
    /// <summary>It is an error that names the file.</summary>
    Stop,

    /// <summary>It is left out and named in a warning.</summary>
    Skip,
}
