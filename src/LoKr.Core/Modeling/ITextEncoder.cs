using TorchSharp;

namespace LoKr.Core.Modeling;

/// <summary>A model that turns token sequences into vectors that other models are conditioned on.</summary>
public interface ITextEncoder : IPretrainedModel
{
    /// <summary>Longest sequence the position embeddings allow, special tokens included.</summary>
    int MaxSequenceLength { get; }

    /// <summary>Encodes a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length]; null lets padding take part, as diffusion pipelines do.</param>
    /// <param name="withPenultimate">Whether the hidden states before the last layer are kept, which Stable Diffusion XL takes.</param>
    /// <returns>The vector of every token and one of every text.</returns>
    TextEncoderOutput Encode(torch.Tensor inputIds, torch.Tensor? attentionMask = null, bool withPenultimate = false);
}
