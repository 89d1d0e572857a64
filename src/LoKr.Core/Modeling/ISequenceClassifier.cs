using TorchSharp;

namespace LoKr.Core.Modeling;

/// <summary>A model that gives one score per label for a batch of token sequences.</summary>
public interface ISequenceClassifier : IPretrainedModel
{
    /// <summary>Label names in the order of the logits.</summary>
    IReadOnlyList<string> Labels { get; }

    /// <summary>Longest sequence the position embeddings allow, special tokens included.</summary>
    int MaxSequenceLength { get; }

    /// <summary>Scores of a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length].</param>
    /// <returns>Logits [batch, labels].</returns>
    torch.Tensor Classify(torch.Tensor inputIds, torch.Tensor attentionMask);
}
