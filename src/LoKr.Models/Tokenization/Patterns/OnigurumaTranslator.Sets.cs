using System.Globalization;

namespace LoKr.Models.Tokenization.Patterns;

/// <content>Character classes and escapes.</content>
internal sealed partial class OnigurumaTranslator
{
    private const string Categories = " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Co Cn ";

    private void Set()
    {
        _at++;
        _output.Append('[');
        if (_at < pattern.Length && pattern[_at] == '^')
        {
            _at++;
            _output.Append('^');
        }

        bool empty = true;
        while (_at < pattern.Length && (pattern[_at] != ']' || empty))
        {
            if (pattern[_at] is '[' or ']' || pattern.AsSpan(_at).StartsWith("&&", StringComparison.Ordinal))
            {
                throw Unsupported($"'{pattern[_at]}' inside a character class");
            }

            empty = false;
            char? first = SetItem();
            bool range = _at + 1 < pattern.Length && pattern[_at] == '-' && pattern[_at + 1] != ']';
            if (!range)
            {
                continue;
            }

            _at++;
            _output.Append('-');
            char? last = pattern[_at] is '[' ? null : SetItem();
            if (first is null || last is null || last < first)
            {
                throw Unsupported($"the range before position {_at}");
            }

            Name(first.Value, last.Value);
        }

        if (_at >= pattern.Length)
        {
            throw Unsupported("an unclosed character class");
        }

        _at++;
        _output.Append(']');
    }

    private char? SetItem()
    {
        if (pattern[_at] == '\\')
        {
            return Escape(inSet: true);
        }

        char c = pattern[_at++];
        Literal(c);
        return c;
    }

    /// <summary>The character that the escape stands for, or null for a class.</summary>
    private char? Escape(bool inSet)
    {
        if (_at + 1 >= pattern.Length)
        {
            throw Unsupported("a backslash at the end");
        }

        char c = pattern[_at + 1];
        _at += 2;
        switch (c)
        {
            case 's' or 'S' or 'd' or 'D':
                _output.Append('\\').Append(c);
                return null;
            case 'p' or 'P':
                Property(c);
                return null;
            case 'r' or 'n' or 't' or 'f':
                return Literal(c switch { 'r' => '\r', 'n' => '\n', 't' => '\t', _ => '\f' });
            case 'u' when Hex(4) is char named:
                return Literal(named);
            case 'x' when Hex(2) is char named:
                return Literal(named);
            default:
                if (char.IsAsciiLetterOrDigit(c) || c > '\u007F')
                {
                    throw Unsupported($"'\\{c}'{(inSet ? " inside a character class" : "")}");
                }

                return Literal(c);
        }
    }

    private char? Hex(int digits)
    {
        if (_at + digits > pattern.Length
            || !ushort.TryParse(pattern.AsSpan(_at, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort code))
        {
            return null;
        }

        _at += digits;
        return (char)code;
    }

    private void Property(char letter)
    {
        int end = pattern.IndexOf('}', _at);
        string name = end < 0 || pattern[_at] != '{' ? "" : pattern[(_at + 1)..end];
        bool negated = name.StartsWith('^');
        name = negated ? name[1..] : name;
        if (name.Length == 0 || !Categories.Contains($" {name} ", StringComparison.Ordinal))
        {
            throw Unsupported($"'\\{letter}{{{name}}}'");
        }

        _at = end + 1;
        _output.Append((letter == 'P') ^ negated ? "\\P{" : "\\p{").Append(name).Append('}');
    }
}
