namespace LoKr.Models.Tokenization.Decoders;

/// <summary>Turns the mark of a word's end into a space, and into nothing in the last token (BPEDecoder of tokenizer.json).</summary>
internal sealed class WordEndDecoder(string suffix) : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) =>
        [.. tokens.Select((token, index) => token.Replace(suffix, index == tokens.Count - 1 ? "" : " ", StringComparison.Ordinal))];
}
