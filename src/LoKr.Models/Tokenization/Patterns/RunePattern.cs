using System.Text;

namespace LoKr.Models.Tokenization.Patterns;

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
