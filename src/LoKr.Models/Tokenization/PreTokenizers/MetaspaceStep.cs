using LoKr.Models.Tokenization.Patterns;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.PreTokenizers;

/// <summary>Metaspace: spaces become a visible character, which may be put in front and split at.</summary>
internal sealed class MetaspaceStep(char replacement, PrependScheme scheme, bool split) : IPieceStep
{
    private readonly PreTokenizer? _split = split
        ? new SplitPreTokenizer(new LiteralPattern(replacement.ToString()), SplitBehavior.MergedWithNext, invert: false)
        : null;

    /// <inheritdoc/>
    public void Apply(Piece piece, List<Piece> result)
    {
        string text = piece.Text.Replace(' ', replacement);
        bool prepends = scheme == PrependScheme.Always || (scheme == PrependScheme.First && piece.AtStart);
        if (prepends && !text.StartsWith(replacement))
        {
            text = replacement + text;
        }

        if (_split is null)
        {
            result.Add(new Piece(text, piece.AtStart));
            return;
        }

        foreach ((int offset, int length) in _split.PreTokenize(text))
        {
            result.Add(new Piece(text.Substring(offset, length), piece.AtStart && offset == 0));
        }
    }
}
