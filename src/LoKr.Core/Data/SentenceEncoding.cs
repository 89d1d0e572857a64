using LoKr.Core.Errors;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Data;

/// <summary>Role of a text, which decides its prompt.</summary>
public enum SentenceKind
{
    /// <summary>A text of no kind.</summary>
    Text,

    /// <summary>A query.</summary>
    Query,

    /// <summary>A document that is searched.</summary>
    Document,
}

/// <summary>Turns texts into the token ids of a sentence encoder: prompt, lower case, special tokens, limit. Safe from several threads at once.</summary>
internal sealed class SentenceEncoding
{
    private readonly ISentenceEncoder _encoder;
    private readonly ITextTokenizer _tokenizer;
    private readonly int _longest;
    private readonly string _prompt;

    private SentenceEncoding(ISentenceEncoder encoder, ITextTokenizer tokenizer, int longest, string prompt)
    {
        (_encoder, _tokenizer, _longest, _prompt) = (encoder, tokenizer, longest, prompt);
        PromptLength = prompt.Length == 0 || encoder.Sentences.IncludePrompt ? 0 : CountPrompt(tokenizer, encoder.Prepare(prompt));
    }

    /// <summary>Number of tokens at the start of every text that do not count in its vector.</summary>
    public int PromptLength { get; }

    /// <summary>Most tokens of a text.</summary>
    public int Longest => _longest;

    /// <summary>The model of a task as a sentence encoder.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>.</exception>
    public static ISentenceEncoder EncoderOf(LoKrModel model) => model.Pretrained as ISentenceEncoder ?? throw new LoKrException(
        ErrorIds.TaskUnknown, LoKrErrorKind.InvalidOperation, $"{model.Name} is not a sentence encoder.", "Load the model as one, without labels and with a kind of pooling.");

    /// <summary>Encodes texts of a kind.</summary>
    /// <param name="model">A sentence encoder with a tokenizer.</param>
    /// <param name="kind">The kind.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for that of the model.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.MaxLengthTooLarge"/>.</exception>
    public static SentenceEncoding Of(LoKrModel model, SentenceKind kind, int? maxLength)
    {
        SentenceSettings settings = EncoderOf(model).Sentences;
        return Create(model, maxLength, kind switch
        {
            SentenceKind.Query => settings.QueryPrompt,
            SentenceKind.Document => settings.DocumentPrompt,
            _ => settings.DefaultPrompt,
        });
    }

    /// <summary>Encodes texts with a prompt that the model has under a name.</summary>
    /// <inheritdoc cref="Of(LoKrModel, SentenceKind, int?)"/>
    /// <param name="model">A sentence encoder with a tokenizer.</param>
    /// <param name="promptName">Name of the prompt.</param>
    /// <param name="maxLength">Longest sequence, special tokens included; null for that of the model.</param>
    public static SentenceEncoding Of(LoKrModel model, string promptName, int? maxLength)
    {
        IReadOnlyDictionary<string, string> prompts = EncoderOf(model).Sentences.Prompts;
        return prompts.TryGetValue(promptName, out string? prompt)
            ? Create(model, maxLength, prompt)
            : throw new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument,
                $"{model.Name} has no prompt '{promptName}'; it has {(prompts.Count == 0 ? "none" : string.Join(", ", prompts.Keys))}.", "Leave the name out, or correct it.") { Target = promptName };
    }

    /// <summary>Token ids of a text.</summary>
    /// <param name="text">The text, which may be empty.</param>
    /// <exception cref="LoKrException"><see cref="ErrorIds.DataValueInvalid"/>: it has no tokens.</exception>
    public CutText Encode(string text)
    {
        CutText encoded = CutText.Encode(_tokenizer, _encoder.Prepare(_prompt + text), _longest);
        return encoded.Ids.Length > 0
            ? encoded
            : throw TextEncoding.WithoutTokens(text);
    }

    /// <summary>Vectors of encoded texts, float32 [rows, dimension], with the graph if gradients are on.</summary>
    /// <param name="model">The model.</param>
    /// <param name="texts">Token ids, padded on the right.</param>
    /// <param name="promptLength">As <see cref="PromptLength"/>.</param>
    public static Tensor Embed(LoKrModel model, TokenMatrix texts, int promptLength) =>
        EncoderOf(model).Embed(texts.IdsOn(model.Device), texts.MaskOn(model.Device), promptLength).to(ScalarType.Float32);

    private static SentenceEncoding Create(LoKrModel model, int? maxLength, string prompt)
    {
        ISentenceEncoder encoder = EncoderOf(model);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        int longest = TextEncoding.ResolveMaxLength(maxLength ?? OwnLimit(encoder), encoder.MaxSequenceLength, tokenizer);
        return new(encoder, tokenizer, longest, prompt);
    }

    /// <summary>The longest sequence that the folder of a model names, which may be more than the model has positions for; null where it names none.</summary>
    public static int? OwnLimit(ISentenceEncoder encoder) => encoder.Sentences.MaxSequenceLength is int own ? Math.Min(own, encoder.MaxSequenceLength) : null;

    // What ends a text stands behind the text and not behind the prompt.
    private static int CountPrompt(ITextTokenizer tokenizer, string prompt)
    {
        IReadOnlyList<TextToken> tokens = tokenizer.Tokenize(prompt);
        int count = tokens.Count;
        while (count > 0 && tokens[count - 1].IsSpecial)
        {
            count--;
        }

        return count;
    }
}
