using LoKr.Models.Tokenization.Patterns;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>Byte-level pre-tokenizer: optional space in front, optional split by GPT-2's pattern, bytes as characters.</summary>
internal sealed class ByteLevelStep(bool addPrefixSpace, bool useRegex) : IPieceStep
{
    private const string Gpt2Pattern = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    // Compiled once: every byte-level tokenizer has the same one.
    private static readonly Lazy<PreTokenizer> s_gpt2 =
        new(() => new SplitPreTokenizer(new CodePointRegex(Gpt2Pattern, "GPT-2"), SplitBehavior.Isolated, invert: false));

    private readonly PreTokenizer? _split = useRegex ? s_gpt2.Value : null;

    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        string text = addPrefixSpace && !piece.Text.StartsWith(' ') ? " " + piece.Text : piece.Text;
        if (_split is null)
        {
            result.Add(new Piece(ByteAlphabet.Encode(text), piece.AtStart));
            return;
        }

        foreach ((int offset, int length) in _split.PreTokenize(text))
        {
            result.Add(new Piece(ByteAlphabet.Encode(text.Substring(offset, length)), piece.AtStart && offset == 0));
        }
    }
}
