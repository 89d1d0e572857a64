using System.Globalization;
using System.Text;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>
/// Translates the part of Oniguruma's syntax that tokenizers use to .NET's. Only constructs whose meaning is known to be the
/// same are let through; everything else is an error, because a pattern that is nearly right gives wrong tokens silently.
/// </summary>
internal sealed partial class OnigurumaTranslator(string pattern, string file)
{
    private readonly StringBuilder _output = new();
    private readonly List<(char First, char Last)> _named = [];
    private int _at;

    /// <summary>The expression in .NET's syntax.</summary>
    public string Translate()
    {
        Alternatives(ignoreCase: false);
        if (_at < pattern.Length)
        {
            throw Unsupported($"'{pattern[_at]}' without its opening bracket");
        }

        return _output.ToString();
    }

    /// <summary>Whether the expression names this character literally or in a range.</summary>
    public bool Names(char character) => _named.Exists(range => range.First <= character && character <= range.Last);

    private void Alternatives(bool ignoreCase)
    {
        StringBuilder literal = new();
        while (_at < pattern.Length && pattern[_at] != ')')
        {
            int start = _output.Length;
            char c = pattern[_at];
            if (c == '|')
            {
                _at++;
                _output.Append('|');
                literal.Clear();
                continue;
            }

            if (ignoreCase)
            {
                FoldedLiteral(literal);
                continue;
            }

            switch (c)
            {
                case '(':
                    Group();
                    break;
                case '[':
                    Set();
                    break;
                case '.':
                    _at++;
                    _output.Append('.');
                    break;
                case '\\':
                    Escape(inSet: false);
                    break;
                case '^' or '$' or '*' or '+' or '?' or '{' or '}' or ']':
                    throw Unsupported($"'{c}' at position {_at}");
                default:
                    _at++;
                    Literal(c);
                    break;
            }

            Quantifier(start);
        }
    }

    private void Group()
    {
        foreach ((string opening, bool ignoreCase) in new[]
        {
            ("(?:", false), ("(?i:", true), ("(?=", false), ("(?!", false), ("(?<=", false), ("(?<!", false), ("(?>", false),
        })
        {
            if (pattern.AsSpan(_at).StartsWith(opening, StringComparison.Ordinal))
            {
                _at += opening.Length;
                _output.Append(ignoreCase ? "(?:" : opening);
                Alternatives(ignoreCase);
                Close();
                return;
            }
        }

        _at++;
        if (_at < pattern.Length && pattern[_at] == '?')
        {
            throw Unsupported($"'(?' at position {_at - 1}");
        }

        _output.Append("(?:");
        Alternatives(ignoreCase: false);
        Close();
    }

    private void Close()
    {
        if (_at >= pattern.Length)
        {
            throw Unsupported("an unclosed bracket");
        }

        _at++;
        _output.Append(')');
    }

    private void Quantifier(int start)
    {
        if (_at >= pattern.Length || pattern[_at] is not ('*' or '+' or '?' or '{'))
        {
            return;
        }

        bool counted = pattern[_at] == '{';
        if (counted)
        {
            int end = pattern.IndexOf('}', _at);
            string[] bounds = end < 0 ? [] : pattern[(_at + 1)..end].Split(',');
            if (bounds.Length is not (1 or 2) || !bounds.All(bound => bound.All(char.IsAsciiDigit)) || bounds[0].Length == 0)
            {
                throw Unsupported($"'{{' at position {_at}");
            }

            _output.Append(pattern, _at, end + 1 - _at);
            _at = end + 1;
        }
        else
        {
            _output.Append(pattern[_at++]);
        }

        if (_at < pattern.Length && pattern[_at] is '*' or '+' or '?' or '{')
        {
            if (counted || pattern[_at] is '*' or '{')
            {
                throw Unsupported($"the quantifier at position {_at}");
            }

            if (pattern[_at++] == '?')
            {
                _output.Append('?');
            }
            else
            {
                // Possessive: .NET has no such quantifier, an atomic group means the same.
                _output.Insert(start, "(?>").Append(')');
            }

            if (_at < pattern.Length && pattern[_at] is '*' or '+' or '?' or '{')
            {
                throw Unsupported($"the quantifier at position {_at}");
            }
        }
    }

    private char Literal(char c)
    {
        if (char.IsSurrogate(c))
        {
            throw Unsupported("a character beyond U+FFFF");
        }

        Name(c, c);
        Append(c);
        return c;
    }

    private void Append(char c)
    {
        if (char.IsAsciiLetterOrDigit(c))
        {
            _output.Append(c);
        }
        else
        {
            _output.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:X4}");
        }
    }

    private void Name(char first, char last) => _named.Add((first, last));

    private Core.Errors.LoKrException Unsupported(string what) =>
        TokenizerError.Unsupported(file, $"{what} in the regular expression '{pattern}'");
}
