using System.Globalization;
using System.Text;
using LoKr.Core.Errors;

namespace LoKr.Core.Chat;

/// <summary>Kinds of tokens of a template.</summary>
internal enum TemplateTokenKind
{
    Data,
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name,
    String,
    Number,
    Operator,
    End,
}

/// <summary>A token of a template.</summary>
/// <param name="Kind">Its kind.</param>
/// <param name="Text">Its text; for a string its value.</param>
/// <param name="Line">Its line, from 1.</param>
internal readonly record struct TemplateToken(TemplateTokenKind Kind, string Text, int Line)
{
    public bool Is(string text) => Kind is TemplateTokenKind.Name or TemplateTokenKind.Operator && Text == text;
}

/// <summary>Creates the errors of templates.</summary>
internal static class TemplateError
{
    public static LoKrException Invalid(int line, string problem) => new(
        ErrorIds.ChatTemplateInvalid, LoKrErrorKind.InvalidData,
        string.Create(CultureInfo.InvariantCulture, $"The chat template is malformed in line {line}: {problem}."), "Copy the template of the model again.");

    public static LoKrException Unsupported(int line, string feature) => new(
        ErrorIds.ChatTemplateUnsupported, LoKrErrorKind.NotSupported,
        string.Create(CultureInfo.InvariantCulture, $"The chat template needs {feature} in line {line}, which is not supported."),
        "Render the conversations with transformers, and use the texts.");

    public static LoKrException Failed(int line, string problem) => new(
        ErrorIds.ChatTemplateFailed, LoKrErrorKind.InvalidData,
        string.Create(CultureInfo.InvariantCulture, $"The chat template fails in line {line}: {problem}."), "Change the conversation to what the template of the model expects.");

    public static LoKrException Limit(int line, string limit) => new(
        ErrorIds.ChatTemplateFailed, LoKrErrorKind.LimitExceeded,
        string.Create(CultureInfo.InvariantCulture, $"The chat template exceeds a limit in line {line}: {limit}."), "Use shorter conversations, or another template.");
}

/// <summary>
/// Splits a template into tokens, with Jinja's options that transformers sets: the first line break after a block and the white space of a line
/// in front of it are left out (<c>trim_blocks</c>, <c>lstrip_blocks</c>), and one line break at the end of the template.
/// </summary>
internal sealed class TemplateLexer
{
    private static readonly string[] s_operators = ["//", "**", "==", "!=", ">=", "<="];

    private readonly string _source;
    private readonly List<TemplateToken> _tokens = [];
    private int _at;
    private int _line = 1;

    private TemplateLexer(string source)
    {
        source = source.ReplaceLineEndings("\n");
        _source = source.EndsWith('\n') ? source[..^1] : source;
    }

    public static List<TemplateToken> Read(string source)
    {
        TemplateLexer lexer = new(source);
        bool lineStart = true;
        while (lexer._at < lexer._source.Length)
        {
            lineStart = lexer.Part(lineStart);
        }

        lexer._tokens.Add(new(TemplateTokenKind.End, "", lexer._line));
        return lexer._tokens;
    }

    /// <summary>Reads the text up to the next tag, and the tag; returns whether what follows begins a line.</summary>
    private bool Part(bool lineStart)
    {
        int open = _at;
        while ((open = _source.IndexOf('{', open)) >= 0 && !(open + 1 < _source.Length && _source[open + 1] is '{' or '%' or '#'))
        {
            open++;
        }

        string text = open < 0 ? _source[_at..] : _source[_at..open];
        if (open < 0)
        {
            Data(text);
            _at = _source.Length;
            return false;
        }

        char kind = _source[open + 1];
        char sign = open + 2 < _source.Length ? _source[open + 2] : ' ';
        string kept = text;
        if (sign == '-')
        {
            kept = text.TrimEnd();
        }
        else if (sign != '+' && kind != '{')
        {
            int line = text.LastIndexOf('\n') + 1;
            kept = (line > 0 || lineStart) && text.AsSpan(line).IsWhiteSpace() ? text[..line] : text;
        }

        Data(kept);
        _line += text.AsSpan().Count('\n');
        _at = open + 2 + (sign is '-' or '+' ? 1 : 0);
        if (kind == '#')
        {
            int end = _source.IndexOf("#}", _at, StringComparison.Ordinal);
            if (end < 0)
            {
                throw TemplateError.Invalid(_line, "a comment has no end");
            }

            _line += _source.AsSpan(_at, end - _at).Count('\n');
            bool strips = end > _at - 1 && _source[end - 1] == '-';
            _at = end + 2;
            return After(strips, trims: true);
        }

        return kind == '{'
            ? Tag(TemplateTokenKind.VariableBegin, TemplateTokenKind.VariableEnd, "}}", trims: false)
            : Tag(TemplateTokenKind.BlockBegin, TemplateTokenKind.BlockEnd, "%}", trims: true);
    }

    private void Data(string text)
    {
        if (text.Length > 0)
        {
            _tokens.Add(new(TemplateTokenKind.Data, text, _line));
        }
    }

    private bool Tag(TemplateTokenKind begin, TemplateTokenKind end, string close, bool trims)
    {
        _tokens.Add(new(begin, "", _line));
        int depth = 0;
        while (true)
        {
            SkipSpace();
            if (_at >= _source.Length)
            {
                throw TemplateError.Invalid(_line, "a tag has no end");
            }

            int sign = _source[_at] is '-' or '+' ? 1 : 0;
            if (depth == 0 && string.CompareOrdinal(_source, _at + sign, close, 0, 2) == 0)
            {
                bool strips = _source[_at] == '-';
                bool keeps = _source[_at] == '+';
                _at += sign + 2;
                _tokens.Add(new(end, "", _line));
                return After(strips, trims && !keeps);
            }

            Token(ref depth);
        }
    }

    // What follows a tag: all white space is left out, or one line break, or nothing.
    private bool After(bool strips, bool trims)
    {
        int from = _at;
        if (strips)
        {
            SkipSpace();
        }
        else if (trims && _at < _source.Length && _source[_at] == '\n')
        {
            _at++;
            _line++;
        }

        return _at > from && _source[_at - 1] == '\n';
    }

    private void SkipSpace()
    {
        while (_at < _source.Length && char.IsWhiteSpace(_source[_at]))
        {
            _line += _source[_at++] == '\n' ? 1 : 0;
        }
    }

    private void Token(ref int depth)
    {
        int start = _at;
        char c = _source[_at];
        if (c is '"' or '\'')
        {
            _tokens.Add(new(TemplateTokenKind.String, Quoted(c), _line));
        }
        else if (char.IsLetter(c) || c == '_')
        {
            while (_at < _source.Length && (char.IsLetterOrDigit(_source[_at]) || _source[_at] == '_'))
            {
                _at++;
            }

            _tokens.Add(new(TemplateTokenKind.Name, _source[start.._at], _line));
        }
        else if (char.IsAsciiDigit(c))
        {
            while (_at < _source.Length && (char.IsAsciiDigit(_source[_at])
                || (_source[_at] == '.' && _at + 1 < _source.Length && char.IsAsciiDigit(_source[_at + 1]) && !_source.AsSpan(start, _at - start).Contains('.'))))
            {
                _at++;
            }

            _tokens.Add(new(TemplateTokenKind.Number, _source[start.._at], _line));
        }
        else
        {
            string text = Array.Find(s_operators, candidate => string.CompareOrdinal(_source, _at, candidate, 0, 2) == 0)
                ?? ("+-/*%~[](){}><=.:|,".Contains(c, StringComparison.Ordinal) ? c.ToString() : throw TemplateError.Invalid(_line, $"'{c}' is not expected"));
            depth += text is "(" or "[" or "{" ? 1 : text is ")" or "]" or "}" ? -1 : 0;
            _at += text.Length;
            _tokens.Add(new(TemplateTokenKind.Operator, text, _line));
        }
    }

    private string Quoted(char quote)
    {
        StringBuilder value = new();
        int line = _line;
        for (_at++; _at < _source.Length && _source[_at] != quote; _at++)
        {
            char c = _source[_at];
            _line += c == '\n' ? 1 : 0;
            if (c != '\\' || _at + 1 >= _source.Length)
            {
                value.Append(c);
                continue;
            }

            char escaped = _source[++_at];
            _line += escaped == '\n' ? 1 : 0;
            _ = escaped switch
            {
                'n' => value.Append('\n'),
                't' => value.Append('\t'),
                'r' => value.Append('\r'),
                'b' => value.Append('\b'),
                'f' => value.Append('\f'),
                '\\' or '\'' or '"' => value.Append(escaped),
                '\n' => value,
                'u' => value.Append((char)Hex(4)),
                'x' => value.Append((char)Hex(2)),
                _ => char.IsAsciiDigit(escaped) || escaped is 'N' or 'U' or 'a' or 'v'
                    ? throw TemplateError.Unsupported(_line, $"the escape '\\{escaped}' in a string")
                    : value.Append('\\').Append(escaped),
            };
        }

        if (_at >= _source.Length)
        {
            throw TemplateError.Invalid(line, "a string has no end");
        }

        _at++;
        return value.ToString();
    }

    private int Hex(int digits)
    {
        if (_at + digits >= _source.Length || !int.TryParse(_source.AsSpan(_at + 1, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int code))
        {
            throw TemplateError.Invalid(_line, "an escape in a string is damaged");
        }

        _at += digits;
        return code;
    }
}
