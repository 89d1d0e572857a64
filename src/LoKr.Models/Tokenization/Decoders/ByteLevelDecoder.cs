using System.Text;
using LoKr.Models.Tokenization.PreTokenizers;

namespace LoKr.Models.Tokenization.Decoders;

/// <summary>Turns byte-level characters back into bytes and those into text; bytes that are no UTF-8 become U+FFFD.</summary>
internal sealed class ByteLevelDecoder : ITokenDecoder
{
    /// <inheritdoc/>
    public List<string> Decode(List<string> tokens) => [Encoding.UTF8.GetString([.. tokens.SelectMany(ByteAlphabet.Decode)])];
}
