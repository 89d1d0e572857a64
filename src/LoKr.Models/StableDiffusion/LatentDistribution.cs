using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>What an autoencoder makes of pictures: a normal distribution for each value of the latents, not scaled for the UNet yet.</summary>
/// <param name="Mean">Means [batch, latent channels, height, width].</param>
/// <param name="LogVariance">Logarithms of the variances, of the same shape.</param>
public sealed record LatentDistribution(Tensor Mean, Tensor LogVariance) : IDisposable
{
    /// <summary>Draws latents: mean + standard deviation · noise.</summary>
    /// <param name="generator">Source of random numbers on the CPU, so that a seed means the same on every device; null for the global one.</param>
    public Tensor Sample(Generator? generator = null)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor noise = empty(Mean.shape, ScalarType.Float32, CPU).normal_(0, 1, generator).to(Mean.dtype, Mean.device);
        return (Mean + ((LogVariance * 0.5).exp() * noise)).MoveToOuterDisposeScope();
    }

    /// <summary>Releases the tensors.</summary>
    public void Dispose()
    {
        Mean.Dispose();
        LogVariance.Dispose();
    }
}
