using System.Globalization;
using System.Text;

namespace LoKr.Core.IO;

/// <summary>
/// Writes JSON exactly as Python's <c>json.dumps</c> does: floats in their shortest form with at least one decimal, no line break at the
/// end. Objects keep the order they are given in.
/// </summary>
internal static class PythonJson
{
    /// <summary>Writes null, bool, string, integers, doubles, sequences, and objects given as sequences of key and value.</summary>
    /// <param name="value">The value.</param>
    /// <param name="form">How it is written; null for two spaces of each level, in ASCII.</param>
    public static string Write(object? value, Form? form = null)
    {
        StringBuilder text = new();
        new Writer(text, form ?? new() { Indent = "  ", AsciiOnly = true }).Append(value, 0);
        return text.ToString();
    }

    /// <summary>A number that Python would have read as an integer stays one: 16 instead of 16.0.</summary>
    public static object IntegerOrFloat(double value) =>
        value == Math.Floor(value) && Math.Abs(value) < 1L << 53 ? (object)(long)value : value;

    /// <summary>A float as Python writes it.</summary>
    public static string Float(double value)
    {
        if (!double.IsFinite(value))
        {
            throw new ArgumentOutOfRangeException(nameof(value), value, "JSON has no infinity and no NaN.");
        }

        // Python changes to an exponent at 1e16, .NET at 1E+17.
        if (value == Math.Floor(value) && Math.Abs(value) < 1e16)
        {
            return value.ToString("F1", CultureInfo.InvariantCulture);
        }

        string shortest = value.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e');
        if (Math.Abs(value) is not (>= 1e16 and < 1e17))
        {
            return shortest;
        }

        string digits = shortest.TrimStart('-').TrimEnd('0');
        return (value < 0 ? "-" : "") + (digits.Length == 1 ? digits : digits.Insert(1, ".")) + "e+16";
    }

    /// <summary>How JSON is written: the arguments of <c>json.dumps</c>.</summary>
    public sealed record Form
    {
        /// <summary>Indentation of a level, with a line for each item; null for one line.</summary>
        public string? Indent { get; init; }

        /// <summary>Whether other characters are escaped.</summary>
        public bool AsciiOnly { get; init; }

        /// <summary>Separator of items; null for a comma, with a space where there is one line.</summary>
        public string? ItemSeparator { get; init; }

        /// <summary>Separator of a key and its value.</summary>
        public string KeySeparator { get; init; } = ": ";

        /// <summary>Whether infinity and NaN are written, which are not JSON.</summary>
        public bool TakesInfinity { get; init; }
    }

    private sealed record Writer(StringBuilder Text, Form Form)
    {
        public void Append(object? value, int depth)
        {
            switch (value)
            {
                case null:
                    Text.Append("null");
                    break;
                case bool flag:
                    Text.Append(flag ? "true" : "false");
                    break;
                case string name:
                    AppendString(name);
                    break;
                case double number when Form.TakesInfinity && !double.IsFinite(number):
                    Text.Append(number < 0 ? "-" : "").Append(double.IsNaN(number) ? "NaN" : "Infinity");
                    break;
                case double number:
                    Text.Append(Float(number));
                    break;
                case int or long or System.Numerics.BigInteger:
                    Text.Append(((IFormattable)value).ToString(null, CultureInfo.InvariantCulture));
                    break;
                case IEnumerable<KeyValuePair<string, object?>> members:
                    AppendAll([.. members], depth, '{', '}', member =>
                    {
                        AppendString(member.Key);
                        Text.Append(Form.KeySeparator);
                        Append(member.Value, depth + 1);
                    });
                    break;
                case IEnumerable<object?> items:
                    AppendAll([.. items], depth, '[', ']', item => Append(item, depth + 1));
                    break;
                default:
                    throw new ArgumentException($"{value.GetType()} has no JSON form.", nameof(value));
            }
        }

        private void AppendAll<T>(T[] items, int depth, char open, char close, Action<T> append)
        {
            Text.Append(open);
            for (int i = 0; i < items.Length; i++)
            {
                if (i > 0)
                {
                    Text.Append(Form.ItemSeparator ?? (Form.Indent is null ? ", " : ","));
                }

                if (Form.Indent is not null)
                {
                    AppendLine(depth + 1);
                }

                append(items[i]);
            }

            if (items.Length > 0 && Form.Indent is not null)
            {
                AppendLine(depth);
            }

            Text.Append(close);
        }

        private void AppendLine(int depth)
        {
            Text.Append('\n');
            for (int i = 0; i < depth; i++)
            {
                Text.Append(Form.Indent);
            }
        }

        private void AppendString(string value)
        {
            Text.Append('"');
            foreach (char character in value)
            {
                _ = character switch
                {
                    '"' => Text.Append("\\\""),
                    '\\' => Text.Append("\\\\"),
                    '\b' => Text.Append("\\b"),
                    '\f' => Text.Append("\\f"),
                    '\n' => Text.Append("\\n"),
                    '\r' => Text.Append("\\r"),
                    '\t' => Text.Append("\\t"),
                    _ when character < ' ' || (Form.AsciiOnly && character > '~') => Text.Append(CultureInfo.InvariantCulture, $"\\u{(int)character:x4}"),
                    _ => Text.Append(character),
                };
            }

            Text.Append('"');
        }
    }
}

/// <summary>Members of a JSON object in order, for <see cref="PythonJson"/>.</summary>
internal sealed class JsonMembers : List<KeyValuePair<string, object?>>
{
    public void Add(string key, object? value) => Add(KeyValuePair.Create(key, value));
}
