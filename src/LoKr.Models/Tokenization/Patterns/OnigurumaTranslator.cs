using System.Globalization;
using System.Text;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>
/// Translates the part of Oniguruma's syntax that tokenizers use to .NET's. Only constructs whose meaning is known to be the
/// same are translated; everything else is an error, because a pattern that is nearly right gives wrong tokens silently.
/// </summary>
internal sealed class OnigurumaTranslator
{
    // Patterns of published tokenizers have some hundred characters and three groups inside each other.
    private const int LongestPattern = 10_000;
    private const int DeepestNesting = 100;

    private static readonly (string Opening, bool IgnoreCase)[] s_groups =
        [("(?:", false), ("(?i:", true), ("(?=", false), ("(?!", false), ("(?<=", false), ("(?<!", false), ("(?>", false)];

    private readonly PatternCursor _cursor;
    private readonly CharacterSetTranslator _sets;
    private readonly CaseFoldingTranslator _folding;
    private int _depth;

    private OnigurumaTranslator(PatternCursor cursor)
    {
        _cursor = cursor;
        _sets = new CharacterSetTranslator(cursor);
        _folding = new CaseFoldingTranslator(cursor);
    }

    /// <summary>Translates a pattern.</summary>
    /// <param name="origin">The expression in Oniguruma's syntax.</param>
    /// <exception cref="Core.Errors.LoKrException">
    /// <see cref="Core.Errors.ErrorIds.TokenizerUnsupported"/> for a construct that is not translated, and for an expression that is too long or too deep.
    /// </exception>
    public static TranslatedPattern Translate(PatternOrigin origin)
    {
        if (origin.Pattern.Length > LongestPattern)
        {
            throw origin.TooLarge(string.Create(CultureInfo.InvariantCulture, $"has {origin.Pattern.Length} characters; {LongestPattern} are allowed"));
        }

        PatternCursor cursor = new(origin);
        new OnigurumaTranslator(cursor).Alternatives(ignoreCase: false);
        return cursor.IsAtEnd
            ? new TranslatedPattern(cursor.Output.ToString(), cursor.Named)
            : throw cursor.Unsupported($"'{cursor.Current}' without its opening bracket");
    }

    private void Alternatives(bool ignoreCase)
    {
        StringBuilder literal = new();
        while (!_cursor.IsAtEnd && _cursor.Current != ')')
        {
            int start = _cursor.Output.Length;
            char c = _cursor.Current;
            if (c == '|')
            {
                _cursor.At++;
                _cursor.Output.Append('|');
                literal.Clear();
                continue;
            }

            if (ignoreCase)
            {
                _folding.Translate(literal);
                continue;
            }

            switch (c)
            {
                case '(':
                    Group();
                    break;
                case '[':
                    _sets.Set();
                    break;
                case '.':
                    _cursor.At++;
                    _cursor.Output.Append('.');
                    break;
                case '\\':
                    _sets.Escape(inSet: false);
                    break;
                case '^' or '$' or '*' or '+' or '?' or '{' or '}' or ']':
                    throw _cursor.Unsupported($"'{c}' at position {_cursor.At}");
                default:
                    _cursor.At++;
                    _cursor.Literal(c);
                    break;
            }

            Quantifier(start);
        }
    }

    private void Group()
    {
        if (++_depth > DeepestNesting)
        {
            throw _cursor.Origin.TooLarge(string.Create(CultureInfo.InvariantCulture, $"has more than {DeepestNesting} groups inside each other"));
        }

        foreach ((string opening, bool ignoreCase) in s_groups)
        {
            if (_cursor.StartsWith(opening))
            {
                _cursor.At += opening.Length;
                _cursor.Output.Append(ignoreCase ? "(?:" : opening);
                Alternatives(ignoreCase);
                Close();
                return;
            }
        }

        _cursor.At++;
        if (!_cursor.IsAtEnd && _cursor.Current == '?')
        {
            throw _cursor.Unsupported($"'(?' at position {_cursor.At - 1}");
        }

        _cursor.Output.Append("(?:");
        Alternatives(ignoreCase: false);
        Close();
    }

    private void Close()
    {
        if (_cursor.IsAtEnd)
        {
            throw _cursor.Unsupported("an unclosed bracket");
        }

        _cursor.At++;
        _cursor.Output.Append(')');
        _depth--;
    }

    private void Quantifier(int start)
    {
        if (_cursor.IsAtEnd || _cursor.Current is not ('*' or '+' or '?' or '{'))
        {
            return;
        }

        bool counted = _cursor.Current == '{';
        if (counted)
        {
            int end = _cursor.Pattern.IndexOf('}', _cursor.At);
            string[] bounds = end < 0 ? [] : _cursor.Pattern[(_cursor.At + 1)..end].Split(',');
            if (bounds.Length is not (1 or 2) || !bounds.All(bound => bound.All(char.IsAsciiDigit)) || bounds[0].Length == 0)
            {
                throw _cursor.Unsupported($"'{{' at position {_cursor.At}");
            }

            _cursor.Output.Append(_cursor.Pattern, _cursor.At, end + 1 - _cursor.At);
            _cursor.At = end + 1;
        }
        else
        {
            _cursor.Output.Append(_cursor.Take());
        }

        if (!_cursor.IsAtEnd && _cursor.Current is '*' or '+' or '?' or '{')
        {
            if (counted || _cursor.Current is '*' or '{')
            {
                throw _cursor.Unsupported($"the quantifier at position {_cursor.At}");
            }

            if (_cursor.Take() == '?')
            {
                _cursor.Output.Append('?');
            }
            else
            {
                // Possessive: .NET lacks this quantifier, but an atomic group means the same.
                _cursor.Output.Insert(start, "(?>").Append(')');
            }

            if (!_cursor.IsAtEnd && _cursor.Current is '*' or '+' or '?' or '{')
            {
                throw _cursor.Unsupported($"the quantifier at position {_cursor.At}");
            }
        }
    }
}

/// <summary>A pattern in .NET's syntax.</summary>
/// <param name="Expression">The expression.</param>
/// <param name="Named">Characters that the expression names literally or in a range.</param>
internal sealed record TranslatedPattern(string Expression, IReadOnlyList<(char First, char Last)> Named)
{
    /// <summary>For each character whether the expression names it literally or in a range.</summary>
    public bool[] MarkNamed()
    {
        int[] changes = new int[char.MaxValue + 2];
        foreach ((char first, char last) in Named)
        {
            changes[first]++;
            changes[last + 1]--;
        }

        bool[] named = new bool[char.MaxValue + 1];
        int open = 0;
        for (int code = 0; code < named.Length; code++)
        {
            open += changes[code];
            named[code] = open > 0;
        }

        return named;
    }
}

/// <summary>A regular expression with the place it comes from, for errors.</summary>
/// <param name="Pattern">The expression in Oniguruma's syntax.</param>
/// <param name="File">The file, or the tokenizer whose own pattern it is.</param>
/// <param name="Key">Its key in the file, or null.</param>
internal sealed record PatternOrigin(string Pattern, string File, string? Key)
{
    /// <summary>The words for the expression in messages, shortened.</summary>
    public string Description =>
        $"the regular expression '{(Pattern.Length > 200 ? Pattern[..200] + "…" : Pattern)}'{(Key is null ? "" : $" of '{Key}'")}";

    /// <summary>The error for an expression beyond a limit.</summary>
    public Core.Errors.LoKrException TooLarge(string problem) => TokenizerError.Limit(File, $"{Description} {problem}");
}

/// <summary>The place in a pattern up to which it is translated, and the translation so far.</summary>
internal sealed class PatternCursor(PatternOrigin origin)
{
    private readonly List<(char First, char Last)> _named = [];

    public PatternOrigin Origin => origin;

    public string Pattern => origin.Pattern;

    /// <summary>Index of the next character.</summary>
    public int At { get; set; }

    public bool IsAtEnd => At >= Pattern.Length;

    public char Current => Pattern[At];

    public StringBuilder Output { get; } = new();

    /// <summary>Characters named literally or in a range.</summary>
    public IReadOnlyList<(char First, char Last)> Named => _named;

    /// <summary>Reads the next character.</summary>
    public char Take() => Pattern[At++];

    public bool StartsWith(string text) => Pattern.AsSpan(At).StartsWith(text, StringComparison.Ordinal);

    /// <summary>Writes a character that stands for itself.</summary>
    public char Literal(char c)
    {
        if (char.IsSurrogate(c))
        {
            throw Unsupported("a character beyond U+FFFF");
        }

        Name(c, c);
        Append(c);
        return c;
    }

    /// <summary>Writes a character, escaped where it could mean something.</summary>
    public void Append(char c)
    {
        if (char.IsAsciiLetterOrDigit(c))
        {
            Output.Append(c);
        }
        else
        {
            Output.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:X4}");
        }
    }

    /// <summary>Records that the pattern names a range of characters.</summary>
    public void Name(char first, char last) => _named.Add((first, last));

    public Core.Errors.LoKrException Unsupported(string construct) =>
        TokenizerError.Unsupported(origin.File, $"{construct} in {origin.Description}");
}
