using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
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
    Integer,
    Float,
    Operator,
    End,
}

/// <summary>A token of a template.</summary>
/// <param name="Kind">Its kind.</param>
/// <param name="Text">Its text; for a string its value; for a number without underscores.</param>
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
internal sealed partial class TemplateLexer
{
    private static readonly string[] s_operators = ["//", "**", "==", "!=", ">=", "<="];

    private static readonly SearchValues<char> s_spaces = SearchValues.Create([.. Enumerable.Range(0, char.MaxValue).Select(static c => (char)c).Where(PythonText.IsSpace)]);

    private readonly string _source;
    private readonly List<TemplateToken> _tokens = [];
    private int _at;
    private int _line = 1;

    private TemplateLexer(string source)
    {
        source = source.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n');
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
            kept = PythonText.Strip(text, null, left: false, right: true);
        }
        else if (sign != '+' && kind != '{')
        {
            int line = text.LastIndexOf('\n') + 1;
            kept = (line > 0 || lineStart) && text.AsSpan(line).IndexOfAnyExcept(s_spaces) < 0 ? text[..line] : text;
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
            char last = end > _at ? _source[end - 1] : ' ';
            _at = end + 2;
            return After(strips: last == '-', trims: last != '+');
        }

        if (kind == '%' && RawBegin().Match(_source, open) is { Success: true } raw)
        {
            return Raw(raw);
        }

        return kind == '{'
            ? Tag(TemplateTokenKind.VariableBegin, TemplateTokenKind.VariableEnd, "}}", trims: false)
            : Tag(TemplateTokenKind.BlockBegin, TemplateTokenKind.BlockEnd, "%}", trims: true);
    }

    // Text between {% raw %} and {% endraw %} is not read; the spaces around the tags go as around others.
    private bool Raw(Match begin)
    {
        _line += begin.Value.AsSpan().Count('\n');
        _at = begin.Index + begin.Length;
        Match end = RawEnd().Match(_source, _at);
        if (!end.Success)
        {
            throw TemplateError.Invalid(_line, "'raw' has no end");
        }

        string text = _source[_at..end.Index];
        Data(end.Groups["strip"].Value == "-" ? PythonText.Strip(text, null, left: false, right: true)
            : end.Groups["strip"].Value != "+" && text.AsSpan(text.LastIndexOf('\n') + 1).IndexOfAnyExcept(s_spaces) < 0 && (text.Contains('\n', StringComparison.Ordinal) || begin.Value.EndsWith('\n')) ? text[..(text.LastIndexOf('\n') + 1)]
            : text);
        _line += text.AsSpan().Count('\n') + end.Value.AsSpan().Count('\n');
        _at = end.Index + end.Length;
        return end.Value.EndsWith('\n');
    }

    [GeneratedRegex(@"\G\{%[-+]?[\s\x1c-\x1f]*raw[\s\x1c-\x1f]*(-%\}[\s\x1c-\x1f]*|%\})", RegexOptions.CultureInvariant)]
    private static partial Regex RawBegin();

    [GeneratedRegex(@"\{%(?<strip>[-+]?)[\s\x1c-\x1f]*endraw[\s\x1c-\x1f]*(\+%\}|-%\}[\s\x1c-\x1f]*|%\}\n?)", RegexOptions.CultureInvariant)]
    private static partial Regex RawEnd();

    // Numbers may have underscores between digits; a number behind a point has no fraction of its own.
    [GeneratedRegex(@"\G(?<!\.)([0-9]+_)*[0-9]+((\.([0-9]+_)*[0-9]+)?e[+-]?([0-9]+_)*[0-9]+|\.([0-9]+_)*[0-9]+)", RegexOptions.CultureInvariant | RegexOptions.IgnoreCase)]
    private static partial Regex Fraction();

    [GeneratedRegex(@"\G(0b(_?[01])+|0o(_?[0-7])+|0x(_?[0-9a-f])+|[1-9](_?[0-9])*|0(_?0)*)", RegexOptions.CultureInvariant | RegexOptions.IgnoreCase)]
    private static partial Regex Whole();

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
        while (_at < _source.Length && PythonText.IsSpace(_source[_at]))
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
            Match fraction = Fraction().Match(_source, _at);
            Match number = fraction.Success ? fraction : Whole().Match(_source, _at);
            _at += number.Length;
            _tokens.Add(new(fraction.Success ? TemplateTokenKind.Float : TemplateTokenKind.Integer, number.Value.Replace("_", "", StringComparison.Ordinal), _line));
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
                'a' => value.Append('\a'),
                'v' => value.Append('\v'),
                '\\' or '\'' or '"' => value.Append(escaped),
                '\n' => value,
                'x' => value.Append((char)Hex(2)),
                'u' => value.Append(Character(Hex(4))),
                'U' => value.Append(Character(Hex(8))),
                'N' => throw TemplateError.Unsupported(_line, "the escape '\\N' in a string"),
                >= '0' and <= '7' => value.Append((char)Octal()),
                // Python escapes what is not ASCII before it reads the escapes.
                > '\u007F' => value.Append('\\').Append(PythonText.Escape(char.IsSurrogatePair(_source, _at) ? char.ConvertToUtf32(escaped, _source[++_at]) : escaped)[1..]),
                _ => value.Append('\\').Append(escaped),
            };
        }

        if (_at >= _source.Length)
        {
            throw TemplateError.Invalid(line, "a string has no end");
        }

        _at++;
        return value.ToString();
    }

    private string Character(int code) => Rune.IsValid(code) ? new Rune(code).ToString() : throw TemplateError.Unsupported(_line, "half of a pair of characters in a string");

    private int Octal()
    {
        int code = 0;
        int end = Math.Min(_at + 3, _source.Length);
        for (; _at < end && _source[_at] is >= '0' and <= '7'; _at++)
        {
            code = (code * 8) + _source[_at] - '0';
        }

        _at--;
        return code;
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
