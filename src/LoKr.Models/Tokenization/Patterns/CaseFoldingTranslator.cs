using System.Text;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>Translates groups that ignore case: their letters become classes, because .NET folds other letters than Oniguruma.</summary>
internal sealed class CaseFoldingTranslator(PatternCursor cursor)
{
    // Pairs of letters that Unicode folds to one code point; when case is ignored, Oniguruma lets that code point match the pair.
    private static readonly string[] s_ligatures = ["ss", "ff", "fi", "fl", "st"];

    /// <summary>Translates the next character or class of the group.</summary>
    /// <param name="literal">Letters of the alternative so far.</param>
    public void Translate(StringBuilder literal)
    {
        if (cursor.Current == '[')
        {
            Set(literal);
            return;
        }

        char c = cursor.Take();
        if (c > '\u007F' || "()[]{}*+?.\\^$".Contains(c, StringComparison.Ordinal))
        {
            throw cursor.Unsupported($"'{c}' inside (?i:…)");
        }

        cursor.Name(c, c);
        if (!char.IsAsciiLetter(c))
        {
            cursor.Append(c);
            return;
        }

        char lower = char.ToLowerInvariant(c);
        literal.Append(lower);
        if (Array.Exists(s_ligatures, pair => literal.ToString().EndsWith(pair, StringComparison.Ordinal)))
        {
            throw cursor.Unsupported($"the letters '{literal}' inside (?i:…)");
        }

        cursor.Output.Append('[');
        Fold(lower);
        cursor.Output.Append(']');
    }

    // Only a class that is an alternative of its own, such as [sdmt]: next to other letters, pairs that fold to one code point would matter.
    private void Set(StringBuilder literal)
    {
        int end = cursor.Pattern.IndexOf(']', cursor.At);
        string letters = end < 0 ? "" : cursor.Pattern[(cursor.At + 1)..end];
        bool alone = literal.Length == 0 && end + 1 < cursor.Pattern.Length && cursor.Pattern[end + 1] is '|' or ')';
        if (letters.Length == 0 || !alone || !letters.All(char.IsAsciiLetter))
        {
            throw cursor.Unsupported("this character class inside (?i:…)");
        }

        cursor.At = end + 1;
        cursor.Output.Append('[');
        foreach (char letter in letters)
        {
            Fold(char.ToLowerInvariant(letter));
        }

        cursor.Output.Append(']');
    }

    private void Fold(char lower)
    {
        cursor.Output.Append(lower).Append(char.ToUpperInvariant(lower));
        if (lower is 's' or 'k')
        {
            // The long s and the Kelvin sign fold to these letters.
            char folded = lower == 's' ? '\u017F' : '\u212A';
            cursor.Append(folded);
            cursor.Name(folded, folded);
        }
    }
}
