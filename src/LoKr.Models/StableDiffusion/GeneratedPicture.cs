using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>A picture and how it came about.</summary>
/// <param name="Pixels">Bytes [height, width, 3] on the CPU, red first.</param>
/// <param name="Seed">Its own seed: with it and the same options the picture is made again by itself.</param>
/// <param name="Scheduler">Name of the scheduler.</param>
/// <param name="Elapsed">Time it took; with several at once, its share.</param>
public sealed record GeneratedPicture(Tensor Pixels, long Seed, string Scheduler, TimeSpan Elapsed) : IDisposable
{
    /// <summary>Width in pixels.</summary>
    public int Width => (int)Pixels.shape[1];

    /// <summary>Height in pixels.</summary>
    public int Height => (int)Pixels.shape[0];

    /// <summary>Releases the pixels.</summary>
    public void Dispose() => Pixels.Dispose();
}
