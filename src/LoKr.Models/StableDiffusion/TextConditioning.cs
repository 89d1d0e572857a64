using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>What the text encoders of a pipeline give its UNet.</summary>
/// <param name="HiddenStates">A vector for each token [batch, length, width]; of both text encoders side by side in Stable Diffusion XL.</param>
/// <param name="Pooled">A vector for each text [batch, projection] by the second text encoder; null without one.</param>
public sealed record TextConditioning(Tensor HiddenStates, Tensor? Pooled) : IDisposable
{
    /// <summary>Releases the tensors.</summary>
    public void Dispose()
    {
        HiddenStates.Dispose();
        Pooled?.Dispose();
    }
}
