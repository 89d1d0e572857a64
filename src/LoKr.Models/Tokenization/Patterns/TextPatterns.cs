using System.Text;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>A pattern to find in a text.</summary>
internal interface ITextPattern
{
    /// <summary>Finds all matches from left to right that do not overlap, in UTF-16 units.</summary>
    List<(int Start, int Length)> Find(string text);
}

/// <summary>A fixed text.</summary>
internal sealed class LiteralPattern(string literal) : ITextPattern
{
    /// <summary>The text.</summary>
    public string Literal => literal;

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

/// <summary>Every single code point of a class.</summary>
internal sealed class RunePattern(Func<Rune, bool> isMatch) : ITextPattern
{
    /// <inheritdoc/>
    public List<(int Start, int Length)> Find(string text)
    {
        List<(int, int)> matches = [];
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (isMatch(rune))
            {
                matches.Add((at, rune.Utf16SequenceLength));
            }

            at += rune.Utf16SequenceLength;
        }

        return matches;
    }
}

/// <summary>
/// <c>\w+|[^\w\s]+</c> with Unicode's <c>\w</c>; .NET's lacks letter numbers and spacing marks.
/// </summary>
internal sealed class WordPattern : ITextPattern
{
    /// <inheritdoc/>
    public List<(int Start, int Length)> Find(string text)
    {
        List<(int Start, int Length)> matches = [];
        int previous = 0;
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            int kind = CharacterClass.IsWord(rune) ? 1 : Rune.IsWhiteSpace(rune) ? 0 : 2;
            if (kind != 0 && kind == previous)
            {
                matches[^1] = (matches[^1].Start, matches[^1].Length + rune.Utf16SequenceLength);
            }
            else if (kind != 0)
            {
                matches.Add((at, rune.Utf16SequenceLength));
            }

            previous = kind;
            at += rune.Utf16SequenceLength;
        }

        return matches;
    }
}
