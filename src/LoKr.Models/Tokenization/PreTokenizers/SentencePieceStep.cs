namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>
/// SentencePiece's escaping of spaces. Unlike Metaspace it puts its character also before a text that begins with a space.
/// </summary>
internal sealed class SentencePieceStep(char replacement, PrependScheme scheme) : IPieceStep
{
    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        string text = piece.Text.Replace(' ', replacement);
        bool prepends = scheme == PrependScheme.Always || (scheme == PrependScheme.First && piece.AtStart);
        result.Add(piece with { Text = prepends ? replacement + text : text });
    }
}
