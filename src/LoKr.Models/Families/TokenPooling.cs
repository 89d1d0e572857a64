using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// Makes the vectors of a text's tokens one, as sentence-transformers' <c>Pooling</c>: over the tokens that are attended to, on whichever side the
/// padding is. A text without any is zeros, minus infinity by <see cref="SentencePooling.Max"/>, and its first place by <see cref="SentencePooling.Cls"/>.
/// </summary>
public static class TokenPooling
{
    /// <summary>Pools a batch.</summary>
    /// <param name="hidden">Vectors of the tokens [batch, length, hidden]; or [batch, hidden], those of the <see cref="Places"/>.</param>
    /// <param name="attentionMask">1 for tokens that count, 0 for padding, int64 [batch, length].</param>
    /// <param name="kinds">Kinds of pooling, at least one.</param>
    /// <param name="promptLength">Number of tokens at the start of every text, which belong to its prompt and do not count.</param>
    /// <returns>[batch, hidden · kinds].</returns>
    public static Tensor Pool(Tensor hidden, Tensor attentionMask, IReadOnlyList<SentencePooling> kinds, int promptLength = 0)
    {
        ArgumentNullException.ThrowIfNull(hidden);
        ArgumentNullException.ThrowIfNull(attentionMask);
        ArgumentNullException.ThrowIfNull(kinds);
        using DisposeScope scope = NewDisposeScope();
        Tensor places = attentionMask.cumsum(1);
        Tensor counted = Counted(attentionMask, places, promptLength);
        Tensor[] pooled = [.. kinds.Select(kind => Pool(hidden, counted, places, kind))];
        return (pooled.Length == 1 ? pooled[0] : cat(pooled, 1)).MoveToOuterDisposeScope();
    }

    /// <summary>The places whose vectors are read, counted as <see cref="BatchPlaces"/> does, int64 [batch]; null where it is more than one of a text.</summary>
    internal static Tensor? Places(Tensor attentionMask, IReadOnlyList<SentencePooling> kinds, int promptLength)
    {
        if (kinds is not [SentencePooling.Cls or SentencePooling.LastToken])
        {
            return null;
        }

        using DisposeScope scope = NewDisposeScope();
        Tensor counted = Counted(attentionMask, attentionMask.cumsum(1), promptLength);
        return BatchPlaces.Of(kinds[0] == SentencePooling.Cls ? First(counted) : Last(counted), attentionMask.shape[1]).MoveToOuterDisposeScope();
    }

    private static Tensor Counted(Tensor mask, Tensor places, int promptLength) => promptLength > 0 ? mask * places.gt(promptLength).to(mask.dtype) : mask;

    private static Tensor Pool(Tensor hidden, Tensor mask, Tensor places, SentencePooling kind)
    {
        Tensor weights = mask.to_type(hidden.dtype).unsqueeze(-1);
        return kind switch
        {
            SentencePooling.Cls => At(hidden, First(mask)),
            SentencePooling.LastToken => At(hidden, Last(mask)) * weights.amax([1L]),
            SentencePooling.Max => hidden.masked_fill(weights.eq(0), double.NegativeInfinity).max(1).values,
            SentencePooling.Mean => Sum(hidden, weights) / Count(weights),
            SentencePooling.MeanSqrtLen => Sum(hidden, weights) / Count(weights).sqrt(),
            SentencePooling.WeightedMean => WeightedMean(hidden, weights, places),
            _ => throw new ArgumentOutOfRangeException(nameof(kind)),
        };
    }

    // The weights count from the first token, that of a prompt included.
    private static Tensor WeightedMean(Tensor hidden, Tensor weights, Tensor places)
    {
        Tensor rising = weights * places.to_type(hidden.dtype).unsqueeze(-1);
        return Sum(hidden, rising) / Count(rising);
    }

    private static Tensor Sum(Tensor hidden, Tensor weights) => (hidden * weights).sum(dim: 1L);

    private static Tensor Count(Tensor weights) => weights.sum(dim: 1L).clamp_min(1e-9);

    private static Tensor First(Tensor mask) => mask.argmax(1);

    private static Tensor Last(Tensor mask) => mask.shape[1] - 1 - mask.flip(1).argmax(1);

    private static Tensor At(Tensor hidden, Tensor positions) => hidden.dim() == 2
        ? hidden
        : hidden.gather(1, positions.view(-1, 1, 1).expand(-1, 1, hidden.shape[2])).squeeze(1);
}
