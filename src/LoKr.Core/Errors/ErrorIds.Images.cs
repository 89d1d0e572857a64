namespace LoKr.Core;

public static partial class ErrorIds
{
    /// <summary>The native library that reads and writes pictures does not load.</summary>
    public const string ImageLibraryMissing = "LoKr.ImageLibraryMissing";

    /// <summary>A file is no picture of a kind that is read, or is damaged.</summary>
    public const string ImageNotReadable = "LoKr.ImageNotReadable";

    /// <summary>A width or height is no multiple of 8, or otherwise none that the model can take.</summary>
    public const string ImageSizeInvalid = "LoKr.ImageSizeInvalid";

    /// <summary>A picture that was made holds NaN or infinity.</summary>
    public const string PictureNotFinite = "LoKr.PictureNotFinite";

    /// <summary>A picture to train on has no caption.</summary>
    public const string CaptionMissing = "LoKr.CaptionMissing";
}
