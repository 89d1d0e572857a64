using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using static TorchSharp.torch;

namespace LoKr.Core.Inference;

/// <summary>Turns texts into vectors with a sentence encoder.</summary>
public static class TextEmbedder
{
    /// <summary>Encodes one batch in evaluation mode and without gradients; afterwards every module returns to the mode it was in.</summary>
    /// <param name="model">A sentence encoder with a tokenizer.</param>
    /// <param name="texts">The texts of the batch; longer ones are cut on the right, special tokens are not.</param>
    /// <param name="promptName">Name of the model's prompt that is put in front of every text; null for the model's default, which is mostly none.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for the model's limit.</param>
    /// <param name="onCut">Called for each text that is cut.</param>
    /// <returns>One vector for each text, in order.</returns>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.MaxLengthTooLarge"/>, <see cref="ErrorIds.InvalidArgument"/> for an
    /// unknown prompt, <see cref="ErrorIds.DataValueInvalid"/> for a text without tokens, or <see cref="ErrorIds.LogitsNotFinite"/>.
    /// </exception>
    public static IReadOnlyList<LoKrEmbedding> Embed(
        LoKrModel model, IReadOnlyList<string> texts, string? promptName = null, int? maxLength = null, Action<CutText>? onCut = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(texts);
        return Embed(model, texts, promptName is null ? SentenceEncoding.Of(model, SentenceKind.Text, maxLength) : SentenceEncoding.Of(model, promptName, maxLength), onCut);
    }

    /// <summary>Encodes one batch of texts of a kind as the other overload does.</summary>
    internal static IReadOnlyList<LoKrEmbedding> Embed(LoKrModel model, IReadOnlyList<string> texts, SentenceEncoding encoding, Action<CutText>? onCut)
    {
        if (texts.Count == 0)
        {
            return [];
        }

        using EvaluationMode mode = new([model]);
        CutText[] encoded = [.. texts.Select(encoding.Encode)];
        foreach (CutText cut in encoded.Where(static text => text.IsCut))
        {
            onCut?.Invoke(cut);
        }

        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        TokenMatrix tokens = new([.. encoded.Select(static text => text.Ids)], model.Tokenizer!.PadId ?? 0);
        Tensor vectors = SentenceEncoding.Embed(model, tokens, encoding.PromptLength);
        int dimension = (int)vectors.shape[1];
        float[] values = vectors.cpu().data<float>().ToArray();
        int broken = Array.FindIndex(values, static value => !float.IsFinite(value));
        if (broken >= 0)
        {
            string text = texts[broken / dimension];
            throw ModelOutputs.NotFinite($"Numbers in the vector of {model.Name} for the text '{text}' are", text);
        }

        return [.. texts.Select((text, row) => new LoKrEmbedding
        {
            Text = text,
            Vector = values[(row * dimension)..((row + 1) * dimension)],
            TokenCount = encoded[row].Ids.Length,
        })];
    }
}

/// <summary>The vector of one text. Flat and serializable.</summary>
public sealed record LoKrEmbedding
{
    /// <summary>The text.</summary>
    public required string Text { get; init; }

    /// <summary>Numbers in the vector.</summary>
    public int Dimension => Vector.Length;

    /// <summary>The vector.</summary>
    public required float[] Vector { get; init; }

    /// <summary>Tokens that were read, special tokens and prompt included.</summary>
    public required int TokenCount { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Dimension} numbers for '{Text}'");
}
