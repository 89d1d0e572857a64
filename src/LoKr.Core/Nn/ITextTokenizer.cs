using System.Text;
using LoKr.Core.Chat;

namespace LoKr.Core.Nn;

/// <summary>Turns text into token ids exactly as the model's own tokenizer files say. Encoding is safe from several threads at once.</summary>
public interface ITextTokenizer
{
    /// <summary>Number of ids, added tokens included.</summary>
    int VocabularySize { get; }

    /// <summary>Longest sequence the tokenizer was made for (<c>model_max_length</c>), or null where it names none.</summary>
    int? MaxLength { get; }

    /// <summary>Id used for padding, or null.</summary>
    int? PadId { get; }

    /// <summary>Id that begins a text, or null.</summary>
    int? BosId { get; }

    /// <summary>Id that ends a text, or null.</summary>
    int? EosId { get; }

    /// <summary>Id of text that the tokenizer does not know, or null where it knows every text.</summary>
    int? UnknownId => null;

    /// <summary>Whether tokens inside a word are marked, as those of WordPiece are, so that <see cref="TextToken.Word"/> tells words apart as the model sees them.</summary>
    bool MarksInsideOfWords => false;

    /// <summary>Files the tokenizer was read from; an export copies them unchanged.</summary>
    IReadOnlyList<string> SourceFiles { get; }

    /// <summary>The chat template of the model, which is read when it is first asked for; null where there is none.</summary>
    /// <exception cref="Errors.LoKrException">
    /// <see cref="Errors.ErrorIds.ChatTemplateInvalid"/>, <see cref="Errors.ErrorIds.ChatTemplateUnsupported"/>, <see cref="Errors.ErrorIds.ChatTemplateFailed"/>: it
    /// cannot be used.
    /// </exception>
    ChatTemplate? FindChatTemplate() => null;

    /// <summary>Encodes one text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="addSpecialTokens">Whether the template of the tokenizer (for example [CLS] … [SEP]) is applied.</param>
    /// <param name="maxLength">Longest result, special tokens included; the text is cut on the right. Null for no limit.</param>
    IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null);

    /// <summary>Encodes one text or a pair of texts, with where every token comes from.</summary>
    /// <param name="text">The text.</param>
    /// <param name="textPair">The second text of a pair, which may be empty; null for one text.</param>
    /// <param name="addSpecialTokens">Whether the template of the tokenizer (for example [CLS] … [SEP] … [SEP]) is applied.</param>
    /// <param name="maxLength">
    /// Longest result, special tokens included; null for no limit. One text is cut on the right; of a pair the longer text is cut first, as
    /// the strategy <c>longest_first</c> of Hugging Face's tokenizers does.
    /// </param>
    IReadOnlyList<TextToken> Tokenize(string text, string? textPair = null, bool addSpecialTokens = true, int? maxLength = null);

    /// <summary>Encodes a text that is already split into words, with the word of every token.</summary>
    /// <param name="words">The words; each is encoded on its own.</param>
    /// <param name="addSpecialTokens">Whether the template of the tokenizer is applied around all of them.</param>
    /// <param name="maxLength">Longest result, special tokens included; the text is cut on the right. Null for no limit.</param>
    IReadOnlyList<TextToken> TokenizeWords(IReadOnlyList<string> words, bool addSpecialTokens = true, int? maxLength = null);

    /// <summary>Turns ids back into text.</summary>
    string Decode(IEnumerable<int> ids, bool skipSpecialTokens = true)
    {
        ArgumentNullException.ThrowIfNull(ids);
        IDecodeStream stream = OpenDecodeStream(skipSpecialTokens);
        StringBuilder text = new();
        foreach (int id in ids)
        {
            text.Append(stream.Step(id));
        }

        return text.Append(stream.Complete()).ToString();
    }

    /// <summary>Begins a text whose ids come one after another.</summary>
    IDecodeStream OpenDecodeStream(bool skipSpecialTokens = true);
}

/// <summary>Turns the ids of one text back into text as they come, at a cost for each that does not depend on how many came before.</summary>
public interface IDecodeStream
{
    /// <summary>
    /// Adds an id; returns the text that no later id can change. It may be empty, as within the bytes of a character or where the next token
    /// decides about a space. All that is returned, <see cref="Complete"/> included, is what <see cref="ITextTokenizer.Decode"/> gives for all ids.
    /// </summary>
    string Step(int id);

    /// <summary>Ends the text; returns what is left of it.</summary>
    string Complete();
}

/// <summary>A token with where it comes from.</summary>
/// <param name="Id">Its id.</param>
/// <param name="TypeId">The <c>token_type_ids</c> value that the tokenizer's template gives it.</param>
/// <param name="Sequence">0 for a token of the text, 1 for one of the second text, -1 for a special token of the template.</param>
/// <param name="Word">
/// Index of its word: of the words that were given, otherwise of the parts that the pre-tokenizer makes of the text. -1 for a special token
/// of the template.
/// </param>
/// <param name="Start">Index in its text, or in its word where words were given, of the first UTF-16 unit that it stands for.</param>
/// <param name="End">Index behind the last one.</param>
public readonly record struct TextToken(int Id, int TypeId, int Sequence, int Word, int Start, int End)
{
    /// <summary>Whether the template added the token.</summary>
    public bool IsSpecial => Sequence < 0;
}
