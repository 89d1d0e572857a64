using System.Globalization;
using System.Numerics;
using System.Text;

namespace LoKr.Core.Chat;

/// <summary>Python's formats of values: <c>'%s' % x</c> and <c>'{}'.format(x)</c>. What is not interpreted is refused.</summary>
internal static class PythonFormat
{
    /// <summary>Fills the places of <c>%</c>.</summary>
    /// <param name="run">The rendering.</param>
    /// <param name="line">Its line.</param>
    /// <param name="format">The text with the places.</param>
    /// <param name="arguments">Values by place, or by name.</param>
    /// <param name="takesMore">Whether values may be left.</param>
    public static string Percent(TemplateRun run, int line, string format, TemplateArguments arguments, bool takesMore = false)
    {
        StringBuilder text = new();
        int next = 0;
        int at = 0;
        while (at < format.Length)
        {
            if (format[at] != '%')
            {
                text.Append(format[at++]);
                continue;
            }

            at++;
            string? name = null;
            if (at < format.Length && format[at] == '(')
            {
                int close = format.IndexOf(')', at);
                name = close > 0 ? format[(at + 1)..close] : throw TemplateError.Failed(line, "a format is not complete");
                at = close + 1;
            }

            Field field = new() { Align = '>' };
            for (; at < format.Length && "-+ 0#".Contains(format[at], StringComparison.Ordinal); at++)
            {
                field = format[at] switch
                {
                    '-' => field with { Align = '<' },
                    '0' => field with { IsZeroFilled = true },
                    '#' => throw TemplateError.Unsupported(line, "'#' in a format"),
                    char sign => field with { Sign = sign },
                };
            }

            field = field with { Width = Digits(format, ref at) ?? 0 };
            if (at < format.Length && format[at] == '.')
            {
                at++;
                field = field with { Precision = Digits(format, ref at) ?? 0 };
            }

            char type = at < format.Length ? format[at++] : throw TemplateError.Failed(line, "a format is not complete");
            if (type == '%')
            {
                text.Append('%');
                continue;
            }

            object? value = name is not null ? (arguments.Named.TryGetValue(name, out object? named) ? named : throw TemplateError.Failed(line, $"there is no '{name}' for a format"))
                : next < arguments.Positional.Count ? arguments.Positional[next++]
                : throw TemplateError.Failed(line, "there are too few values for a format");
            text.Append(run.Checked(line, type switch
            {
                's' or 'r' => field.Text(run, line, type == 's' ? TemplateValues.Text(line, value) : TemplateValues.Represent(line, value)),
                'd' or 'i' or 'u' when value is double { } number && double.IsFinite(number) => field.Number(run, line, PythonNumbers.Cut(number), 'd'),
                'd' or 'i' or 'u' or 'x' or 'X' or 'o' when PythonNumbers.Whole(value) is not null => field.Number(run, line, value, type is 'i' or 'u' ? 'd' : type),
                'f' or 'F' when PythonNumbers.IsNumber(value) => field.Number(run, line, value, 'f'),
                's' or 'r' or 'd' or 'i' or 'u' or 'x' or 'X' or 'o' or 'f' or 'F' => throw TemplateError.Failed(line, $"a number is needed, not {TemplateValues.Kind(value)}"),
                _ => throw TemplateError.Unsupported(line, $"the format '%{type}'"),
            }));
        }

        return next == arguments.Positional.Count || takesMore ? text.ToString() : throw TemplateError.Failed(line, "there are too many values for a format");
    }

    /// <summary>Fills the places of braces.</summary>
    /// <param name="run">The rendering.</param>
    /// <param name="line">Its line.</param>
    /// <param name="format">The text with the places.</param>
    /// <param name="arguments">Values by place, or by name.</param>
    public static string Braces(TemplateRun run, int line, string format, TemplateArguments arguments)
    {
        StringBuilder text = new();
        int next = 0;
        for (int at = 0; at < format.Length; at++)
        {
            char c = format[at];
            if (c is not ('{' or '}'))
            {
                text.Append(c);
                continue;
            }

            if (at + 1 < format.Length && format[at + 1] == c)
            {
                text.Append(c);
                at++;
                continue;
            }

            int close = c == '{' ? format.IndexOf('}', at) : -1;
            string inner = close > at ? format[(at + 1)..close] : throw TemplateError.Failed(line, "a format has a single brace");
            if (inner.AsSpan().ContainsAny('{', '[', '!'))
            {
                throw TemplateError.Unsupported(line, $"the format '{{{inner}}}'");
            }

            string[] parts = inner.Split(':', 2);
            string[] path = parts[0].Split('.');
            object? value = path[0].Length == 0 ? Positional(next++)
                : int.TryParse(path[0], NumberStyles.None, CultureInfo.InvariantCulture, out int place) ? Positional(place)
                : arguments.Named.TryGetValue(path[0], out object? named) ? named
                : throw TemplateError.Failed(line, $"there is no '{path[0]}' for a format");
            foreach (string name in path.Skip(1))
            {
                value = TemplateLibrary.Attribute(line, value, name);
            }

            text.Append(run.Checked(line, Written(run, line, value, parts.Length > 1 ? parts[1] : "")));
            at = close;
        }

        return text.ToString();

        object? Positional(int place) => place < arguments.Positional.Count ? arguments.Positional[place] : throw TemplateError.Failed(line, "there are too few values for a format");
    }

    private static string Written(TemplateRun run, int line, object? value, string format)
    {
        if (format.Length == 0)
        {
            return TemplateValues.Text(line, value);
        }

        int at = 0;
        bool isNumber = PythonNumbers.IsNumber(value) && value is not bool;
        Field field = new() { Align = isNumber ? '>' : '<' };
        if (format.Length > 1 && format[1] is '<' or '>' or '^')
        {
            field = field with { Fill = format[0], Align = format[1] };
            at = 2;
        }
        else if (format[0] is '<' or '>' or '^')
        {
            field = field with { Align = format[0] };
            at = 1;
        }

        if (at < format.Length && format[at] is '+' or '-' or ' ')
        {
            field = field with { Sign = format[at] == '-' ? '\0' : format[at] };
            at++;
        }

        if (at < format.Length && format[at] == '0' && isNumber)
        {
            field = field with { IsZeroFilled = true };
            at++;
        }

        field = field with { Width = Digits(format, ref at) ?? 0 };
        if (at < format.Length && format[at] is ',' or '_')
        {
            field = field with { Group = format[at++] };
        }

        if (at < format.Length && format[at] == '.')
        {
            at++;
            field = field with { Precision = Digits(format, ref at) ?? throw TemplateError.Failed(line, "a format is not complete") };
        }

        string type = format[at..];
        return (type, value) switch
        {
            ("" or "s", string text) when field is { Group: '\0', Sign: '\0' } => field.Text(run, line, text),
            ("" or "d", long or BigInteger) when field.Precision is null => field.Number(run, line, value, 'd'),
            ("f" or "F", long or double or BigInteger) => field.Number(run, line, value, 'f'),
            ("x" or "X" or "o", long or BigInteger) when field is { Precision: null, Group: '\0' } => field.Number(run, line, value, type[0]),
            _ => throw TemplateError.Unsupported(line, $"the format '{{:{format}}}' of {TemplateValues.Kind(value)}"),
        };
    }

    private static int? Digits(string format, ref int at)
    {
        int start = at;
        while (at < format.Length && char.IsAsciiDigit(format[at]))
        {
            at++;
        }

        return at > start && int.TryParse(format.AsSpan(start, at - start), NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number : null;
    }

    /// <summary>How one value is written.</summary>
    private sealed record Field
    {
        public char Fill { get; init; } = ' ';

        public char Align { get; init; }

        public char Sign { get; init; }

        public char Group { get; init; }

        public bool IsZeroFilled { get; init; }

        public int Width { get; init; }

        public int? Precision { get; init; }

        public string Text(TemplateRun run, int line, string text) => Padded(run, line, "", Precision is int most ? PythonText.Slice(text, null, most, 1) : text, canFill: false);

        public string Number(TemplateRun run, int line, object? value, char type)
        {
            BigInteger? whole = PythonNumbers.Whole(value);
            double number = PythonNumbers.Approximate(value)!.Value;
            bool isNegative = whole?.Sign < 0 || (whole is null && double.IsNegative(number));
            BigInteger magnitude = BigInteger.Abs(whole ?? 0);
            string digits = type switch
            {
                'f' when !double.IsFinite(number) => PythonNumbers.Text(Math.Abs(number)),
                'f' => PythonNumbers.Fixed(Math.Abs(number), Math.Min(Precision ?? 6, 1000)),
                'd' => magnitude.ToString(CultureInfo.InvariantCulture),
                'o' => Octal(magnitude),
                _ => magnitude.ToString(type == 'X' ? "X" : "x", CultureInfo.InvariantCulture).TrimStart('0') is { Length: > 0 } hex ? hex : "0",
            };
            if (type != 'f' && Precision is int least)
            {
                digits = digits.PadLeft(Math.Min(least, 1000), '0');
            }

            if (Group != '\0')
            {
                int end = digits.IndexOf('.') is int point and >= 0 ? point : digits.Length;
                for (int i = end - 3; i > 0; i -= 3)
                {
                    digits = digits.Insert(i, Group.ToString());
                }

                if (IsZeroFilled)
                {
                    throw TemplateError.Unsupported(line, "zeros before groups of digits in a format");
                }
            }

            return Padded(run, line, isNegative ? "-" : Sign == '\0' ? "" : Sign.ToString(), digits, canFill: true);
        }

        private static string Octal(BigInteger number)
        {
            StringBuilder digits = new();
            for (; number > 7; number >>= 3)
            {
                digits.Insert(0, (char)('0' + (int)(number & 7)));
            }

            return digits.Insert(0, (char)('0' + (int)number)).ToString();
        }

        private string Padded(TemplateRun run, int line, string sign, string text, bool canFill)
        {
            long pad = Width - sign.Length - PythonText.Length(text);
            return pad <= 0 ? sign + text
                : canFill && IsZeroFilled && Align != '<' ? sign + run.Repeat(line, "0", pad) + text
                : Align == '<' ? sign + text + run.Repeat(line, Fill.ToString(), pad)
                : Align == '>' ? run.Repeat(line, Fill.ToString(), pad) + sign + text
                : run.Repeat(line, Fill.ToString(), pad / 2) + sign + text + run.Repeat(line, Fill.ToString(), pad - (pad / 2));
        }
    }
}
