using System.Text;

namespace LoKr.Models.Tokenization.Patterns;

/// <content>Groups that ignore case: their letters become sets, because .NET folds other letters than Oniguruma.</content>
internal sealed partial class OnigurumaTranslator
{
    // Pairs of letters that Unicode folds to one code point; ignoring case, Oniguruma lets that one match the pair.
    private static readonly string[] s_ligatures = ["ss", "ff", "fi", "fl", "st"];

    private void FoldedLiteral(StringBuilder literal)
    {
        if (pattern[_at] == '[')
        {
            FoldedSet(literal);
            return;
        }

        char c = pattern[_at++];
        if (c > '\u007F' || "()[]{}*+?.\\^$".Contains(c, StringComparison.Ordinal))
        {
            throw Unsupported($"'{c}' inside (?i:…)");
        }

        Name(c, c);
        if (!char.IsAsciiLetter(c))
        {
            Append(c);
            return;
        }

        char lower = char.ToLowerInvariant(c);
        literal.Append(lower);
        if (Array.Exists(s_ligatures, pair => literal.ToString().EndsWith(pair, StringComparison.Ordinal)))
        {
            throw Unsupported($"the letters '{literal}' inside (?i:…)");
        }

        _output.Append('[');
        Fold(lower);
        _output.Append(']');
    }

    // [sdmt] as an alternative of its own: beside other letters, pairs that fold to one code point would matter.
    private void FoldedSet(StringBuilder literal)
    {
        int end = pattern.IndexOf(']', _at);
        string letters = end < 0 ? "" : pattern[(_at + 1)..end];
        bool alone = literal.Length == 0 && end + 1 < pattern.Length && pattern[end + 1] is '|' or ')';
        if (letters.Length == 0 || !alone || !letters.All(char.IsAsciiLetter))
        {
            throw Unsupported("this character class inside (?i:…)");
        }

        _at = end + 1;
        _output.Append('[');
        foreach (char letter in letters)
        {
            Fold(char.ToLowerInvariant(letter));
        }

        _output.Append(']');
    }

    private void Fold(char lower)
    {
        _output.Append(lower).Append(char.ToUpperInvariant(lower));
        if (lower is 's' or 'k')
        {
            // Long s and the Kelvin sign fold to these.
            char folded = lower == 's' ? '\u017F' : '\u212A';
            Append(folded);
            Name(folded, folded);
        }
    }
}
