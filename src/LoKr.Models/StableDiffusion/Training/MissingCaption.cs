namespace LoKr.Models.StableDiffusion.Training;

/// <summary>What happens to a picture without a caption.</summary>
public enum MissingCaption
{
    /// <summary>It is an error that names the file.</summary>
    Stop,

    /// <summary>It is trained with an empty caption.</summary>
    Allow,
}
