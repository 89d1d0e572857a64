using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>
/// A regular expression over code points. .NET matches UTF-16 units, where a letter or emoji beyond U+FFFF is two surrogates of
/// no category. Such a text is matched in a copy in which every code point beyond U+FFFF is replaced by one character of the same
/// general category that the expression does not name: it matches exactly where the code point would.
/// Matching takes time in proportion to the text (<see cref="RegexOptions.NonBacktracking"/>), except with an expression that looks around or
/// has atomic groups. The one look-ahead of published tokenizers, the ending <c>|\s+(?!\S)|\s+</c>, is matched by hand.
/// </summary>
internal sealed class CodePointRegex : ITextPattern
{
    // Runs of white space, without their last character where a word follows.
    private const string SpacesEnding = @"|\s+(?!\S)|\s+";

    // An honest pattern takes microseconds for a match and a second for a hundred megabytes.
    private static readonly TimeSpan s_matchLimit = TimeSpan.FromSeconds(2);
    private const long TextLimitMilliseconds = 10_000;

    private readonly PatternOrigin _origin;
    private readonly Regex _regex;
    private readonly char[] _standIns;
    private readonly bool _findsSpaces;

    /// <param name="pattern">The expression in Oniguruma's syntax, as in the tokenizer's file.</param>
    /// <param name="file">The file, for errors.</param>
    /// <param name="key">Its key in the file, for errors.</param>
    public CodePointRegex(string pattern, string file, string? key = null)
    {
        _origin = new PatternOrigin(pattern, file, key);
        _findsSpaces = pattern.EndsWith(SpacesEnding, StringComparison.Ordinal) && !pattern.EndsWith('\\' + SpacesEnding, StringComparison.Ordinal);
        TranslatedPattern translated = OnigurumaTranslator.Translate(
            _findsSpaces ? _origin with { Pattern = pattern[..^SpacesEnding.Length] } : _origin);
        _standIns = StandIns(translated, file);
        try
        {
            _regex = Create(translated.Expression);
        }
        catch (ArgumentException exception)
        {
            throw TokenizerError.Invalid(file, $"{_origin.Description} is malformed", exception);
        }
    }

    private static Regex Create(string expression)
    {
        try
        {
            return new Regex(expression, RegexOptions.CultureInvariant | RegexOptions.NonBacktracking, s_matchLimit);
        }
        catch (NotSupportedException)
        {
            // It looks around or has an atomic group, so only the limits of time bound it.
            return new Regex(expression, RegexOptions.CultureInvariant | RegexOptions.Compiled, s_matchLimit);
        }
    }

    /// <inheritdoc/>
    /// <exception cref="Core.Errors.LoKrException"><see cref="Core.Errors.ErrorIds.TokenizerInvalid"/> where matching takes too long.</exception>
    public List<(int Start, int Length)> Find(string text)
    {
        List<(int Start, int Length)> matches = [];
        if (text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            Find(text, null, matches);
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
        Find(copy.AsSpan(0, count), starts, matches);
        return matches;
    }

    private void Find(ReadOnlySpan<char> text, int[]? starts, List<(int Start, int Length)> matches)
    {
        // Each match has a limit, and so has a text of many slow ones: ten seconds, and ten more for each million characters.
        long end = Environment.TickCount64 + TextLimitMilliseconds + (text.Length / 100);
        try
        {
            int at = 0;
            bool again = true;
            while (again)
            {
                again = false;
                foreach (ValueMatch match in _regex.EnumerateMatches(text, at))
                {
                    at = AddSpaces(text, at, match.Index, starts, matches);
                    if (at > match.Index)
                    {
                        // The white space reaches into the match, so the text behind it is searched again.
                        again = true;
                        break;
                    }

                    Add(match.Index, match.Length, starts, matches);
                    at = match.Index + match.Length;
                    if (Environment.TickCount64 > end)
                    {
                        throw TooSlow(text.Length, null);
                    }
                }
            }

            AddSpaces(text, at, text.Length, starts, matches);
        }
        catch (RegexMatchTimeoutException exception)
        {
            throw TooSlow(text.Length, exception);
        }
    }

    /// <summary>Adds the runs of white space that begin in a part of the text, and returns where the last one ends.</summary>
    private int AddSpaces(ReadOnlySpan<char> text, int from, int to, int[]? starts, List<(int Start, int Length)> matches)
    {
        int done = from;
        int at = from;
        while (_findsSpaces && at < to)
        {
            if (!char.IsWhiteSpace(text[at]))
            {
                at++;
                continue;
            }

            int end = at + 1;
            while (end < text.Length && char.IsWhiteSpace(text[end]))
            {
                end++;
            }

            end = end < text.Length && end - at > 1 ? end - 1 : end;
            Add(at, end - at, starts, matches);
            done = at = end;
        }

        return done;
    }

    private static void Add(int start, int length, int[]? starts, List<(int Start, int Length)> matches) =>
        matches.Add(starts is null ? (start, length) : (starts[start], starts[start + length] - starts[start]));

    private Core.Errors.LoKrException TooSlow(int length, Exception? cause) => TokenizerError.Limit(
        _origin.File, string.Create(CultureInfo.InvariantCulture, $"{_origin.Description} takes too long on a text of {length} characters"), cause);

    private static char[] StandIns(TranslatedPattern pattern, string file)
    {
        bool[] named = pattern.MarkNamed();
        char[] standIns = new char[(int)UnicodeCategory.OtherNotAssigned + 1];

        // From U+0080 on, because patterns name ASCII characters.
        for (int code = 0x80; code <= 0xFFFF; code++)
        {
            ref char standIn = ref standIns[(int)CharUnicodeInfo.GetUnicodeCategory((char)code)];
            if (standIn == '\0' && !named[code])
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
