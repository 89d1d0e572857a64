namespace LoKr.Models.Tokenization.Decoders;

/// <summary>Changes every token by itself; the function also gets its index.</summary>
internal sealed class MapDecoder(Func<string, int, string> map) : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) => [.. tokens.Select(map)];
}
