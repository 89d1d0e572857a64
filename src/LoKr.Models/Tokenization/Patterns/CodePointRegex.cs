using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>
/// A regular expression over code points. .NET matches UTF-16 units, where a letter or emoji beyond U+FFFF is two surrogates of
/// no category. Such a text is matched in a copy in which every code point beyond U+FFFF is replaced by one character of the same
/// general category that the expression does not name: it matches exactly where the code point would.
/// </summary>
internal sealed class CodePointRegex : ITextPattern
{
    private readonly Regex _regex;
    private readonly char[] _standIns;

    /// <param name="pattern">The expression in Oniguruma's syntax, as in the tokenizer's file.</param>
    /// <param name="file">The file, for errors.</param>
    public CodePointRegex(string pattern, string file)
    {
        TranslatedPattern translated = OnigurumaTranslator.Translate(pattern, file);
        _standIns = StandIns(translated, file);
        try
        {
            _regex = new Regex(translated.Expression, RegexOptions.CultureInvariant | RegexOptions.Compiled);
        }
        catch (ArgumentException exception)
        {
            throw TokenizerError.Invalid(file, $"the regular expression '{pattern}' is malformed", exception);
        }
    }

    /// <inheritdoc/>
    public List<(int Start, int Length)> Find(string text)
    {
        List<(int Start, int Length)> matches = [];
        if (text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            foreach (ValueMatch match in _regex.EnumerateMatches(text))
            {
                matches.Add((match.Index, match.Length));
            }

            return matches;
        }

        char[] copy = new char[text.Length];
        int[] starts = new int[text.Length + 1];
        int count = 0;
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            copy[count] = rune.IsBmp ? (char)rune.Value : _standIns[(int)Rune.GetUnicodeCategory(rune)];
            starts[count++] = at;
            at += rune.Utf16SequenceLength;
        }

        starts[count] = at;
        foreach (ValueMatch match in _regex.EnumerateMatches(copy.AsSpan(0, count)))
        {
            int start = starts[match.Index];
            matches.Add((start, starts[match.Index + match.Length] - start));
        }

        return matches;
    }

    private static char[] StandIns(TranslatedPattern pattern, string file)
    {
        char[] standIns = new char[(int)UnicodeCategory.OtherNotAssigned + 1];

        // From U+0080 on, because patterns name ASCII characters.
        for (int code = 0x80; code <= 0xFFFF; code++)
        {
            ref char standIn = ref standIns[(int)CharUnicodeInfo.GetUnicodeCategory((char)code)];
            if (standIn == '\0' && !pattern.Names((char)code))
            {
                standIn = (char)code;
            }
        }

        for (int category = 0; category < standIns.Length; category++)
        {
            if (standIns[category] == '\0' && IsBeyondBmp((UnicodeCategory)category))
            {
                throw TokenizerError.Unsupported(file, $"a regular expression that names every character of the category {(UnicodeCategory)category}");
            }
        }

        return standIns;
    }

    private static bool IsBeyondBmp(UnicodeCategory category) => category
        is not (UnicodeCategory.Surrogate or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator
            or UnicodeCategory.SpaceSeparator or UnicodeCategory.Control or UnicodeCategory.TitlecaseLetter);
}
