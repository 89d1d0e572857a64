using TorchSharp;

namespace LoKr.Core.Modeling;

/// <summary>A model that predicts the next token.</summary>
public interface ICausalLanguageModel : IPretrainedModel
{
    /// <summary>Longest sequence the model was made for (<c>max_position_embeddings</c>).</summary>
    int MaxSequenceLength { get; }

    /// <summary>Ids that end a generated text (generation_config.json, else config.json).</summary>
    IReadOnlyList<int> EosIds { get; }

    /// <summary>Scores of every position of a batch.</summary>
    /// <param name="inputIds">Token ids, int64 [batch, length].</param>
    /// <param name="attentionMask">1 for tokens, 0 for padding on the right, int64 [batch, length]; null when there is no padding.</param>
    /// <returns>Logits [batch, length, vocabulary].</returns>
    torch.Tensor Logits(torch.Tensor inputIds, torch.Tensor? attentionMask = null);

    /// <summary>Hidden states before the output embeddings, so that a loss can score only the positions it needs.</summary>
    /// <returns>Hidden states [batch, length, hidden].</returns>
    torch.Tensor HiddenStates(torch.Tensor inputIds, torch.Tensor? attentionMask = null);

    /// <summary>Applies the output embeddings to hidden states [..., hidden].</summary>
    torch.Tensor Project(torch.Tensor hiddenStates);

    /// <summary>Generates a continuation with a key-value cache.</summary>
    /// <param name="promptIds">Token ids of the prompt.</param>
    /// <param name="options">Length, sampling and seed.</param>
    /// <param name="cancellationToken">Stops between tokens.</param>
    /// <returns>The new ids, without the prompt and without the id that ended the text.</returns>
    IReadOnlyList<int> Generate(IReadOnlyList<int> promptIds, GenerationOptions options, CancellationToken cancellationToken = default);
}
