using static TorchSharp.torch;

namespace LoKr.Models.StableDiffusion;

/// <summary>Token ids of texts for the text encoders of a pipeline, cut and padded to the length these take.</summary>
/// <param name="Ids">For the text encoder, int64 [batch, length].</param>
/// <param name="Ids2">For the second one, int64 [batch, length]; null without one.</param>
public sealed record PromptTokens(Tensor Ids, Tensor? Ids2) : IDisposable
{
    /// <summary>Releases the tensors.</summary>
    public void Dispose()
    {
        Ids.Dispose();
        Ids2?.Dispose();
    }
}
