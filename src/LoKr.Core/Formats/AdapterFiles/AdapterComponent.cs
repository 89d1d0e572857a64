namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>The part of a pipeline that a module of an adapter file belongs to.</summary>
public enum AdapterComponent
{
    /// <summary>The file does not say: the whole model.</summary>
    Model,

    /// <summary>The denoiser, as a UNet.</summary>
    Unet,

    /// <summary>The denoiser, as a transformer.</summary>
    Transformer,

    /// <summary>The first text encoder.</summary>
    TextEncoder,

    /// <summary>The second text encoder.</summary>
    TextEncoder2,

    /// <summary>The third text encoder.</summary>
    TextEncoder3,

    /// <summary>The denoiser of Stable Cascade's first stage.</summary>
    PriorUnet,

    /// <summary>The text encoder of Stable Cascade's first stage.</summary>
    PriorTextEncoder,
}
