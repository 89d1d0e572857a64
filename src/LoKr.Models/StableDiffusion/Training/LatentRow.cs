namespace LoKr.Models.StableDiffusion.Training;

/// <summary>A picture whose latents are on disk.</summary>
/// <param name="File">Safetensors file with <c>mean</c> and <c>logvar</c>, float32 [channels, height, width], not scaled.</param>
/// <param name="Caption">What the picture shows.</param>
/// <param name="Width">Width in pixels after scaling and cutting.</param>
/// <param name="Height">Height in pixels after scaling and cutting.</param>
/// <param name="OriginalWidth">Width in pixels before.</param>
/// <param name="OriginalHeight">Height in pixels before.</param>
public sealed record LatentRow(string File, string Caption, int Width, int Height, int OriginalWidth, int OriginalHeight)
{
    /// <summary>Pixels of the scaled picture that were cut off at the left.</summary>
    public int CropLeft => (int)Math.Round(((OriginalWidth * Scale) - Width) / 2);

    /// <summary>Pixels of the scaled picture that were cut off at the top.</summary>
    public int CropTop => (int)Math.Round(((OriginalHeight * Scale) - Height) / 2);

    private double Scale => Math.Max((double)Width / OriginalWidth, (double)Height / OriginalHeight);
}
