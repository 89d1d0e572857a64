using System.Collections;
using System.Globalization;
using System.Text;
using LoKr.Core.IO;

namespace LoKr.Core.Chat;

/// <summary>A list or a tuple of a template.</summary>
internal sealed class TemplateList : List<object?>
{
    public TemplateList()
    {
    }

    public TemplateList(IEnumerable<object?> items)
        : base(items)
    {
    }
}

/// <summary>A dictionary of a template; it keeps the order of its keys.</summary>
internal sealed class TemplateMap : IEnumerable<KeyValuePair<string, object?>>
{
    private readonly OrderedDictionary<string, object?> _members = new(StringComparer.Ordinal);

    public int Count => _members.Count;

    public IEnumerable<string> Keys => _members.Keys;

    public IEnumerable<object?> Values => _members.Values;

    public object? this[string key]
    {
        set => _members[key] = value;
    }

    public bool TryGet(string key, out object? value) => _members.TryGetValue(key, out value);

    public bool Contains(string key) => _members.ContainsKey(key);

    public IEnumerator<KeyValuePair<string, object?>> GetEnumerator() => _members.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}

/// <summary>A namespace: the one object whose attributes a template may set.</summary>
internal sealed class TemplateNamespace
{
    public TemplateMap Members { get; } = new();
}

/// <summary>A value that is not there; it prints as nothing and has no attributes.</summary>
/// <param name="Name">What is not there.</param>
internal sealed record TemplateUndefined(string Name);

/// <summary>A macro, or a function that the reference gives to every template.</summary>
internal delegate object? TemplateFunction(TemplateRun run, int line, TemplateArguments arguments);

/// <summary>Arguments of a call, a filter or a test.</summary>
/// <param name="Positional">Those by place.</param>
/// <param name="Named">Those by name.</param>
internal sealed record TemplateArguments(IReadOnlyList<object?> Positional, IReadOnlyDictionary<string, object?> Named)
{
    public static TemplateArguments None { get; } = new([], new Dictionary<string, object?>());

    /// <summary>An argument by place or name, or a default.</summary>
    public object? Get(int index, string name, object? otherwise = null) =>
        index < Positional.Count ? Positional[index] : Named.GetValueOrDefault(name, otherwise);
}

/// <summary>What Python and Jinja make of values. Integers are <see cref="long"/>, none is null.</summary>
internal static class TemplateValues
{
    /// <summary>White space of Python's <c>str.strip</c>.</summary>
    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\u001C' and <= '\u001F';

    public static bool IsTrue(object? value) => value switch
    {
        null or TemplateUndefined => false,
        bool flag => flag,
        long number => number != 0,
        double number => number != 0,
        string text => text.Length > 0,
        TemplateList list => list.Count > 0,
        TemplateMap map => map.Count > 0,
        _ => true,
    };

    /// <summary>Text as <c>str</c> gives it, and nothing for what is not there.</summary>
    public static string Text(object? value) => value switch
    {
        string text => text,
        TemplateUndefined => "",
        _ => Represent(value),
    };

    /// <summary>Text as <c>repr</c> gives it.</summary>
    private static string Represent(object? value) => value switch
    {
        null => "None",
        TemplateUndefined => "Undefined",
        bool flag => flag ? "True" : "False",
        long number => number.ToString(CultureInfo.InvariantCulture),
        double number => PythonJson.Float(number),
        string text => Quote(text),
        TemplateList list => $"[{string.Join(", ", list.Select(Represent))}]",
        TemplateMap map => $"{{{string.Join(", ", map.Select(member => $"{Quote(member.Key)}: {Represent(member.Value)}"))}}}",
        _ => $"<{value.GetType().Name}>",
    };

    private static string Quote(string text)
    {
        char quote = text.Contains('\'', StringComparison.Ordinal) && !text.Contains('"', StringComparison.Ordinal) ? '"' : '\'';
        StringBuilder quoted = new();
        quoted.Append(quote);
        foreach (char c in text)
        {
            _ = c switch
            {
                '\n' => quoted.Append("\\n"),
                '\r' => quoted.Append("\\r"),
                '\t' => quoted.Append("\\t"),
                '\\' => quoted.Append("\\\\"),
                _ when c == quote => quoted.Append('\\').Append(c),
                < ' ' or '\u007F' => quoted.Append(CultureInfo.InvariantCulture, $"\\x{(int)c:x2}"),
                _ => quoted.Append(c),
            };
        }

        return quoted.Append(quote).ToString();
    }

    public static bool AreEqual(object? a, object? b) => (a, b) switch
    {
        (null, null) or (TemplateUndefined, TemplateUndefined) => true,
        (string first, string second) => string.Equals(first, second, StringComparison.Ordinal),
        (TemplateList first, TemplateList second) => first.Count == second.Count && first.Zip(second).All(static pair => AreEqual(pair.First, pair.Second)),
        (TemplateMap first, TemplateMap second) => first.Count == second.Count
            && first.All(member => second.TryGet(member.Key, out object? other) && AreEqual(member.Value, other)),
        _ when Number(a) is double first && Number(b) is double second => first == second,
        _ => ReferenceEquals(a, b),
    };

    /// <summary>The order of two numbers or texts; null where they have none.</summary>
    public static int? Compare(object? a, object? b) => (a, b) switch
    {
        (string first, string second) => string.CompareOrdinal(first, second),
        _ when Number(a) is double first && Number(b) is double second => first.CompareTo(second),
        _ => null,
    };

    /// <summary>A number, also of a Boolean; null for anything else.</summary>
    public static double? Number(object? value) => value switch
    {
        long number => number,
        double number => number,
        bool flag => flag ? 1 : 0,
        _ => null,
    };

    /// <summary>A whole number, also of a Boolean; null for anything else.</summary>
    public static long? Integer(object? value) => value switch
    {
        long number => number,
        bool flag => flag ? 1 : 0,
        _ => null,
    };

    /// <summary>What a loop takes from a value; null where it has nothing to take.</summary>
    public static IReadOnlyList<object?>? Items(object? value) => value switch
    {
        TemplateList list => list,
        TemplateMap map => [.. map.Keys],
        string text => [.. text.EnumerateRunes().Select(static rune => rune.ToString())],
        TemplateUndefined => [],
        _ => null,
    };

    /// <summary>The number of items, or of code points of a text; null where there is none.</summary>
    public static long? Length(object? value) => value switch
    {
        string text => text.EnumerateRunes().Count(),
        TemplateList list => list.Count,
        TemplateMap map => map.Count,
        TemplateUndefined => 0,
        _ => null,
    };

    /// <summary>Items of a slice, as Python takes them.</summary>
    public static IEnumerable<object?> Slice(IReadOnlyList<object?> items, long? start, long? stop, long step)
    {
        long count = items.Count;
        long first = Bound(start, step > 0 ? 0 : count - 1);
        long last = Bound(stop, step > 0 ? count : -1);
        for (long i = first; step > 0 ? i < last : i > last; i += step)
        {
            yield return items[(int)i];
        }

        long Bound(long? given, long otherwise)
        {
            if (given is not long value)
            {
                return otherwise;
            }

            value = value < 0 ? value + count : value;
            return step > 0 ? Math.Clamp(value, 0, count) : Math.Clamp(value, -1, count - 1);
        }
    }
}
