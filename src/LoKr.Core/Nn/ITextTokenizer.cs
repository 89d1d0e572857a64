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

    /// <summary>Files the tokenizer was read from; an export copies them unchanged.</summary>
    IReadOnlyList<string> SourceFiles { get; }

    /// <summary>Encodes one text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="addSpecialTokens">Whether the template of the tokenizer (for example [CLS] … [SEP]) is applied.</param>
    /// <param name="maxLength">Longest result, special tokens included; the text is cut on the right. Null for no limit.</param>
    IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null);

    /// <summary>Turns ids back into text.</summary>
    string Decode(IEnumerable<int> ids, bool skipSpecialTokens = true);
}
