using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>Applies a pre-tokenizer that only splits.</summary>
internal sealed class SplitStep(PreTokenizer preTokenizer) : IPieceStep
{
    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        foreach ((int offset, int length) in preTokenizer.PreTokenize(piece.Text))
        {
            result.Add(length == piece.Text.Length
                ? piece
                : new Piece(piece.Text.Substring(offset, length), piece.AtStart && offset == 0));
        }
    }
}
