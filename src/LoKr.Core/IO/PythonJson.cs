using System.Globalization;
using System.Text;

namespace LoKr.Core.IO;

/// <summary>
/// Writes JSON exactly as Python's <c>json.dumps(value, indent=2)</c> does: ASCII with escapes, floats in their shortest form with
/// at least one decimal, no line break at the end. Objects keep the order they are given in.
/// </summary>
internal static class PythonJson
{
    /// <summary>Writes null, bool, string, integers, doubles, sequences, and objects given as sequences of key and value.</summary>
    public static string Write(object? value)
    {
        StringBuilder text = new();
        Append(text, value, 0);
        return text.ToString();
    }

    /// <summary>A number that Python would have read as an integer stays one: 16 instead of 16.0.</summary>
    public static object IntegerOrFloat(double value) =>
        value == Math.Floor(value) && Math.Abs(value) < 1L << 53 ? (object)(long)value : value;

    private static void Append(StringBuilder text, object? value, int depth)
    {
        switch (value)
        {
            case null:
                text.Append("null");
                break;
            case bool flag:
                text.Append(flag ? "true" : "false");
                break;
            case string name:
                AppendString(text, name);
                break;
            case double number:
                text.Append(Float(number));
                break;
            case int or long:
                text.Append(((IConvertible)value).ToString(CultureInfo.InvariantCulture));
                break;
            case IEnumerable<KeyValuePair<string, object?>> members:
                AppendAll(text, [.. members], depth, '{', '}', member =>
                {
                    AppendString(text, member.Key);
                    text.Append(": ");
                    Append(text, member.Value, depth + 1);
                });
                break;
            case IEnumerable<object?> items:
                AppendAll(text, [.. items], depth, '[', ']', item => Append(text, item, depth + 1));
                break;
            default:
                throw new ArgumentException($"{value.GetType()} has no JSON form.", nameof(value));
        }
    }

    private static void AppendAll<T>(StringBuilder text, T[] items, int depth, char open, char close, Action<T> append)
    {
        text.Append(open);
        for (int i = 0; i < items.Length; i++)
        {
            text.Append(i == 0 ? "\n" : ",\n").Append(' ', (depth + 1) * 2);
            append(items[i]);
        }

        if (items.Length > 0)
        {
            text.Append('\n').Append(' ', depth * 2);
        }

        text.Append(close);
    }

    private static string Float(double value)
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

    private static void AppendString(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char character in value)
        {
            _ = character switch
            {
                '"' => text.Append("\\\""),
                '\\' => text.Append("\\\\"),
                '\b' => text.Append("\\b"),
                '\f' => text.Append("\\f"),
                '\n' => text.Append("\\n"),
                '\r' => text.Append("\\r"),
                '\t' => text.Append("\\t"),
                < ' ' or > '~' => text.Append(CultureInfo.InvariantCulture, $"\\u{(int)character:x4}"),
                _ => text.Append(character),
            };
        }

        text.Append('"');
    }
}

/// <summary>Members of a JSON object in order, for <see cref="PythonJson"/>.</summary>
internal sealed class JsonMembers : List<KeyValuePair<string, object?>>
{
    public void Add(string key, object? value) => Add(KeyValuePair.Create(key, value));
}
