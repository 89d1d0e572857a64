using System.Globalization;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>Translates character classes and escapes.</summary>
internal sealed class CharacterSetTranslator(PatternCursor cursor)
{
    private const string Categories = " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp C Cc Cf Co Cn ";

    /// <summary>Translates a class in brackets.</summary>
    public void Set()
    {
        cursor.At++;
        cursor.Output.Append('[');
        if (!cursor.IsAtEnd && cursor.Current == '^')
        {
            cursor.At++;
            cursor.Output.Append('^');
        }

        bool empty = true;
        while (!cursor.IsAtEnd && (cursor.Current != ']' || empty))
        {
            if (cursor.Current is '[' or ']' || cursor.StartsWith("&&"))
            {
                throw cursor.Unsupported($"'{cursor.Current}' inside a character class");
            }

            empty = false;
            char? first = SetItem();
            bool range = cursor.At + 1 < cursor.Pattern.Length && cursor.Current == '-' && cursor.Pattern[cursor.At + 1] != ']';
            if (!range)
            {
                continue;
            }

            cursor.At++;
            cursor.Output.Append('-');
            char? last = cursor.Current is '[' ? null : SetItem();
            if (first is null || last is null || last < first)
            {
                throw cursor.Unsupported($"the range before position {cursor.At}");
            }

            cursor.Name(first.Value, last.Value);
        }

        if (cursor.IsAtEnd)
        {
            throw cursor.Unsupported("an unclosed character class");
        }

        cursor.At++;
        cursor.Output.Append(']');
    }

    private char? SetItem() => cursor.Current == '\\' ? Escape(inSet: true) : cursor.Literal(cursor.Take());

    /// <summary>Translates an escape; returns the character it stands for, or null for a class.</summary>
    public char? Escape(bool inSet)
    {
        if (cursor.At + 1 >= cursor.Pattern.Length)
        {
            throw cursor.Unsupported("a backslash at the end");
        }

        char c = cursor.Pattern[cursor.At + 1];
        cursor.At += 2;
        switch (c)
        {
            case 's' or 'S' or 'd' or 'D':
                cursor.Output.Append('\\').Append(c);
                return null;
            case 'p' or 'P':
                Property(c);
                return null;
            case 'r' or 'n' or 't' or 'f':
                return cursor.Literal(c switch { 'r' => '\r', 'n' => '\n', 't' => '\t', _ => '\f' });
            case 'u' when Hex(4) is char named:
                return cursor.Literal(named);
            case 'x' when Hex(2) is char named:
                return cursor.Literal(named);
            default:
                if (char.IsAsciiLetterOrDigit(c) || c > '\u007F')
                {
                    throw cursor.Unsupported($"'\\{c}'{(inSet ? " inside a character class" : "")}");
                }

                return cursor.Literal(c);
        }
    }

    private char? Hex(int digits)
    {
        if (cursor.At + digits > cursor.Pattern.Length
            || !ushort.TryParse(cursor.Pattern.AsSpan(cursor.At, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort code))
        {
            return null;
        }

        cursor.At += digits;
        return (char)code;
    }

    private void Property(char letter)
    {
        int end = cursor.Pattern.IndexOf('}', cursor.At);
        string name = end < 0 || cursor.Current != '{' ? "" : cursor.Pattern[(cursor.At + 1)..end];
        bool negated = name.StartsWith('^');
        name = negated ? name[1..] : name;
        if (name.Length == 0 || !Categories.Contains($" {name} ", StringComparison.Ordinal))
        {
            throw cursor.Unsupported($"'\\{letter}{{{name}}}'");
        }

        cursor.At = end + 1;
        cursor.Output.Append((letter == 'P') ^ negated ? "\\P{" : "\\p{").Append(name).Append('}');
    }
}
