using LoKr.Core;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Shared;

/// <summary>Checks of a batch of token ids before it reaches the model.</summary>
internal static class TokenInput
{
    /// <summary>Refuses a batch that does not fit with <see cref="ErrorIds.ModelInputInvalid"/>.</summary>
    /// <param name="architecture">Name of the model for the message.</param>
    /// <param name="inputIds">Token ids, to be int64 [batch, length].</param>
    /// <param name="attentionMask">Mask of the same shape, or null.</param>
    /// <param name="vocabularySize">Number of embeddings.</param>
    /// <param name="positions">Longest sequence that has positions; null where they are not a table.</param>
    public static void Check(string architecture, Tensor inputIds, Tensor? attentionMask, int vocabularySize, int? positions = null)
    {
        ArgumentNullException.ThrowIfNull(inputIds);
        string? problem =
            inputIds.dim() != 2 || inputIds.dtype != ScalarType.Int64 ? $"token ids are {inputIds.dtype} [{string.Join(", ", inputIds.shape)}], not int64 [batch, length]"
            : inputIds.numel() == 0 ? $"token ids are empty: [{string.Join(", ", inputIds.shape)}]"
            : inputIds.shape[1] > positions ? $"sequences have {inputIds.shape[1]} tokens, more than the {positions} the model has positions for"
            : attentionMask is not null && !attentionMask.shape.SequenceEqual(inputIds.shape) ? $"the attention mask is [{string.Join(", ", attentionMask.shape)}], the token ids [{string.Join(", ", inputIds.shape)}]"
            : HasUnknownIds(inputIds, vocabularySize) ? $"a token id is not between 0 and {vocabularySize - 1}"
            : null;
        if (problem is not null)
        {
            throw new LoKrException(ErrorIds.ModelInputInvalid, LoKrErrorKind.InvalidArgument, $"{architecture}: {problem}.", "Encode texts with the tokenizer of the model, cut to its longest sequence.");
        }
    }

    // Worth a look at the values: on a GPU an id outside the table would end the process's use of the device.
    private static bool HasUnknownIds(Tensor inputIds, int vocabularySize)
    {
        using DisposeScope scope = NewDisposeScope();
        return inputIds.lt(0).logical_or(inputIds.ge(vocabularySize)).any().item<bool>();
    }
}
