namespace LoKr.Models.Tokenization.Decoders;

/// <summary>What transformers' CLIP tokenizer does after its decoder: word ends become spaces, the ends are trimmed.</summary>
internal static class ClipDecoder
{
    public static ITokenDecoder Around(ITokenDecoder decoder, string endOfWordSuffix) => new SequenceDecoder(
    [
        decoder,
        new FuseDecoder(),
        new MapDecoder((text, _) => text.Replace(endOfWordSuffix, " ", StringComparison.Ordinal).Trim()),
    ]);
}
