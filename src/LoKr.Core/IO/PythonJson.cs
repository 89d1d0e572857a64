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
    /// <param name="indent">Spaces of each level, with a line for each item; null for one line.</param>
    /// <param name="asciiOnly">Whether other characters are escaped.</param>
    public static string Write(object? value, int? indent = 2, bool asciiOnly = true)
    {
        StringBuilder text = new();
        new Form(text, indent, asciiOnly).Append(value, 0);
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

        // Python changes to an exponent at 1e16, .NET at 1E+15.
        return value == Math.Floor(value) && Math.Abs(value) < 1e16
            ? value.ToString("F1", CultureInfo.InvariantCulture)
            : value.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e');
    }

    private sealed record Form(StringBuilder Text, int? Indent, bool AsciiOnly)
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
                case double number:
                    Text.Append(Float(number));
                    break;
                case int or long:
                    Text.Append(((IConvertible)value).ToString(CultureInfo.InvariantCulture));
                    break;
                case IEnumerable<KeyValuePair<string, object?>> members:
                    AppendAll([.. members], depth, '{', '}', member =>
                    {
                        AppendString(member.Key);
                        Text.Append(": ");
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
                if (Indent is int width)
                {
                    Text.Append(i == 0 ? "\n" : ",\n").Append(' ', (depth + 1) * width);
                }
                else if (i > 0)
                {
                    Text.Append(", ");
                }

                append(items[i]);
            }

            if (items.Length > 0 && Indent is int outer)
            {
                Text.Append('\n').Append(' ', depth * outer);
            }

            Text.Append(close);
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
                    _ when character < ' ' || (AsciiOnly && character > '~') => Text.Append(CultureInfo.InvariantCulture, $"\\u{(int)character:x4}"),
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
