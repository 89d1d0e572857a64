namespace LoKr.Models.Tokenization.Patterns;

/// <summary>A fixed text.</summary>
internal sealed class LiteralPattern(string literal) : ITextPattern
{
    /// <inheritdoc/>
    public List<(int Start, int Length)> Find(string text)
    {
        List<(int, int)> matches = [];
        for (int at = text.IndexOf(literal, StringComparison.Ordinal); at >= 0;
            at = text.IndexOf(literal, at + literal.Length, StringComparison.Ordinal))
        {
            matches.Add((at, literal.Length));
        }

        return matches;
    }
}
