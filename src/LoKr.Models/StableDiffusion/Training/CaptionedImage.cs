namespace LoKr.Models.StableDiffusion.Training;

/// <summary>A picture to train on.</summary>
/// <param name="Path">Full path of the file.</param>
/// <param name="Caption">What it shows; may be empty.</param>
/// <param name="Width">Width in pixels, as it is seen.</param>
/// <param name="Height">Height in pixels, as it is seen.</param>
public sealed record CaptionedImage(string Path, string Caption, int Width, int Height);
