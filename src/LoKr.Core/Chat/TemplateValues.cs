using System.Collections;
using System.Globalization;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace LoKr.Core.Chat;

/// <summary>A list of a template, or a tuple, which prints otherwise and equals no list.</summary>
internal class TemplateList : List<object?>
{
    public TemplateList()
    {
    }

    public TemplateList(IEnumerable<object?> items)
        : base(items)
    {
    }

    /// <summary>Whether it is a tuple.</summary>
    public bool IsTuple { get; init; }

    public static TemplateList Tuple(params IEnumerable<object?> items) => new(items) { IsTuple = true };
}

/// <summary>A group of <c>groupby</c>: a tuple whose items have the names <c>grouper</c> and <c>list</c>.</summary>
internal sealed class TemplateGroup : TemplateList
{
    public TemplateGroup(object? grouper, TemplateList items)
        : base([grouper, items]) => IsTuple = true;
}

/// <summary>Whole numbers from a start up to a stop.</summary>
internal sealed class TemplateRange(long start, long step, int count) : IReadOnlyList<object?>
{
    public int Count => count;

    public long Start => start;

    public long Step => step;

    /// <summary>The stop as it is printed.</summary>
    public required long Stop { get; init; }

    public object? this[int index] => start + (index * step);

    public IEnumerator<object?> GetEnumerator() => Enumerable.Range(0, count).Select(i => this[i]).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}

/// <summary>The keys, values or items of a dictionary: they are counted and looped over, but have no places.</summary>
/// <param name="Kind">The name that they are printed with.</param>
/// <param name="Items">What they hold.</param>
internal sealed record TemplateView(string Kind, IReadOnlyList<object?> Items);

/// <summary>The result of a filter such as <c>map</c>: it is true, has no length, and is looped over once.</summary>
internal sealed class TemplateGenerator
{
    private readonly Func<object?> _next;

    public TemplateGenerator(IEnumerable<object?> source)
    {
        IEnumerator<object?> items = source.GetEnumerator();
        _next = () => items.MoveNext() ? items.Current : End;
    }

    /// <summary>Stands behind the last item.</summary>
    public static object End { get; } = new();

    /// <summary>The next item, or <see cref="End"/>.</summary>
    public object? Next() => _next();

    /// <summary>The items that are left, one by one.</summary>
    public IEnumerable<object?> Rest()
    {
        for (object? item = _next(); !ReferenceEquals(item, End); item = _next())
        {
            yield return item;
        }
    }
}

/// <summary>A key of a dictionary: what is equal in Python is one key (1, 1.0 and true).</summary>
/// <param name="value">Text, number, Boolean, none, or a tuple of these.</param>
internal readonly struct TemplateKey(object? value) : IEquatable<TemplateKey>
{
    public object? Value => value;

    public bool Equals(TemplateKey other) => value is string text ? other.Value is string same && text.Equals(same, StringComparison.Ordinal) : TemplateValues.AreEqual(value, other.Value);

    public override bool Equals(object? obj) => obj is TemplateKey other && Equals(other);

    public override int GetHashCode() => value switch
    {
        string text => text.GetHashCode(StringComparison.Ordinal),
        TemplateList list => list.Aggregate(list.Count, static (hash, item) => HashCode.Combine(hash, new TemplateKey(item).GetHashCode())),
        _ when PythonNumbers.Approximate(value) is double number => number.GetHashCode(),
        _ => 0,
    };

    /// <summary>Whether a value can be a key.</summary>
    public static bool IsKey(object? value) => value switch
    {
        TemplateList { IsTuple: true } tuple => tuple.TrueForAll(IsKey),
        TemplateMap or TemplateList => false,
        _ => true,
    };
}

/// <summary>A dictionary of a template; it keeps the order of its keys.</summary>
internal sealed class TemplateMap : IEnumerable<KeyValuePair<object?, object?>>
{
    private readonly OrderedDictionary<TemplateKey, object?> _members = [];

    public int Count => _members.Count;

    public IEnumerable<object?> Keys => _members.Keys.Select(static key => key.Value);

    public IEnumerable<object?> Values => _members.Values;

    public object? this[object? key]
    {
        set => _members[new(key)] = value;
    }

    public bool TryGet(object? key, out object? value) => _members.TryGetValue(new(key), out value);

    public bool Contains(object? key) => _members.ContainsKey(new(key));

    public IEnumerator<KeyValuePair<object?, object?>> GetEnumerator() =>
        _members.Select(static member => KeyValuePair.Create(member.Key.Value, member.Value)).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}

/// <summary>A namespace: the one object whose attributes a template may set.</summary>
internal sealed class TemplateNamespace
{
    public TemplateMap Members { get; } = new();
}

/// <summary>A text that <c>safe</c> marks: what is added to it is escaped for HTML, also where nothing else is.</summary>
/// <param name="Text">The text.</param>
internal sealed record TemplateMarkup(string Text)
{
    /// <summary>A text as it is added.</summary>
    public static string Escape(string text) => text.Replace("&", "&amp;", StringComparison.Ordinal).Replace("<", "&lt;", StringComparison.Ordinal)
        .Replace(">", "&gt;", StringComparison.Ordinal).Replace("'", "&#39;", StringComparison.Ordinal).Replace("\"", "&#34;", StringComparison.Ordinal);
}

/// <summary>A value that is not there; it prints as nothing and has no attributes.</summary>
/// <param name="Name">What is not there.</param>
internal sealed record TemplateUndefined(string Name);

/// <summary>Python's and Jinja's operations on values. Integers are <see cref="long"/>, or <see cref="BigInteger"/> where they are too large; none is null.</summary>
internal static class TemplateValues
{
    public static bool IsTrue(object? value) => value switch
    {
        null or TemplateUndefined => false,
        bool flag => flag,
        long number => number != 0,
        BigInteger number => !number.IsZero,
        double number => number != 0,
        string text => text.Length > 0,
        TemplateMarkup markup => markup.Text.Length > 0,
        TemplateMap map => map.Count > 0,
        TemplateView view => view.Items.Count > 0,
        IReadOnlyList<object?> list => list.Count > 0,
        _ => true,
    };

    /// <summary>A value in a message.</summary>
    public static string Kind(object? value) => value switch
    {
        null => "none",
        TemplateUndefined undefined => $"'{undefined.Name}', which is not defined",
        string or TemplateMarkup => "a text",
        TemplateList { IsTuple: true } => "a tuple",
        TemplateList => "a list",
        TemplateRange => "a range",
        TemplateMap => "a dictionary",
        TemplateView => "a view of a dictionary",
        TemplateGenerator => "the result of a filter without 'list'",
        bool => "true or false",
        long or double or BigInteger => "a number",
        TemplateNamespace => "a namespace",
        TemplateLoop => "the loop",
        _ => "a function",
    };

    /// <summary>Text as <c>str</c> gives it, and nothing for what is not there.</summary>
    public static string Text(int line, object? value) => value switch
    {
        string text => text,
        TemplateMarkup markup => markup.Text,
        TemplateUndefined => "",
        _ => Represent(line, value),
    };

    /// <summary>Text as <c>repr</c> gives it.</summary>
    public static string Represent(int line, object? value)
    {
        CheckDepth(line);
        return value switch
        {
            null => "None",
            TemplateUndefined => "Undefined",
            bool flag => flag ? "True" : "False",
            long number => number.ToString(CultureInfo.InvariantCulture),
            BigInteger number => number.ToString(CultureInfo.InvariantCulture),
            double number => PythonNumbers.Text(number),
            string text => PythonText.Represent(text),
            TemplateList { IsTuple: true, Count: 1 } tuple => $"({Represent(line, tuple[0])},)",
            TemplateList { IsTuple: true } tuple => $"({All(tuple)})",
            TemplateList list => $"[{All(list)}]",
            TemplateRange { Step: 1 } range => string.Create(CultureInfo.InvariantCulture, $"range({range.Start}, {range.Stop})"),
            TemplateRange range => string.Create(CultureInfo.InvariantCulture, $"range({range.Start}, {range.Stop}, {range.Step})"),
            TemplateView view => $"{view.Kind}([{All(view.Items)}])",
            TemplateMap map => $"{{{string.Join(", ", map.Select(member => $"{Represent(line, member.Key)}: {Represent(line, member.Value)}"))}}}",
            TemplateNamespace space => $"<Namespace {Represent(line, space.Members)}>",
            _ => throw TemplateError.Unsupported(line, $"{Kind(value)} as text"),
        };

        string All(IEnumerable<object?> items) => string.Join(", ", items.Select(item => Represent(line, item)));
    }

    public static bool AreEqual(object? a, object? b) => (a, b) switch
    {
        (null, null) or (TemplateUndefined, TemplateUndefined) => true,
        _ when PlainText(a) is string first && PlainText(b) is string second => string.Equals(first, second, StringComparison.Ordinal),
        (TemplateList first, TemplateList second) => first.IsTuple == second.IsTuple && AreEqual((IReadOnlyList<object?>)first, second),
        (TemplateRange first, TemplateRange second) => AreEqual((IReadOnlyList<object?>)first, second),
        (TemplateView { Kind: not "dict_values" } first, TemplateView second) => first.Kind == second.Kind && first.Items.Count == second.Items.Count
            && first.Items.All(item => second.Items.Any(other => AreEqual(item, other))),
        (TemplateMap first, TemplateMap second) => IsShallow() && first.Count == second.Count
            && first.All(member => second.TryGet(member.Key, out object? other) && AreEqual(member.Value, other)),
        _ when PythonNumbers.IsNumber(a) && PythonNumbers.IsNumber(b) => PythonNumbers.Compare(a, b) == 0,
        _ => ReferenceEquals(a, b),
    };

    /// <summary>The order of two numbers, texts, lists or tuples; null where they have none.</summary>
    public static int? Compare(object? a, object? b)
    {
        switch (a, b)
        {
            case (TemplateList first, TemplateList second) when first.IsTuple == second.IsTuple && IsShallow():
                for (int i = 0; i < Math.Min(first.Count, second.Count); i++)
                {
                    if (!AreEqual(first[i], second[i]))
                    {
                        return Compare(first[i], second[i]);
                    }
                }

                return first.Count.CompareTo(second.Count);
            default:
                return PlainText(a) is string left && PlainText(b) is string right ? PythonText.Compare(left, right)
                    : PythonNumbers.IsNumber(a) && PythonNumbers.IsNumber(b) ? PythonNumbers.Compare(a, b)
                    : null;
        }
    }

    /// <summary>The text of a text; null for anything else.</summary>
    public static string? PlainText(object? value) => value as string ?? (value as TemplateMarkup)?.Text;

    /// <summary>A whole number, also of a Boolean, within 64 bits; null for anything else.</summary>
    public static long? Integer(object? value) => value switch
    {
        long number => number,
        bool flag => flag ? 1 : 0,
        _ => null,
    };

    /// <summary>Items that a loop takes from a value; null where it has none to take.</summary>
    public static IEnumerable<object?>? Iterate(object? value) => value switch
    {
        IReadOnlyList<object?> list => list,
        TemplateMap map => map.Keys,
        TemplateView view => view.Items,
        TemplateGenerator generator => generator.Rest(),
        TemplateUndefined => [],
        _ => PlainText(value) is string text ? PythonText.Characters(text) : null,
    };

    /// <summary>The number of items, or of code points of a text; null where there is none.</summary>
    public static long? Length(object? value) => value switch
    {
        TemplateMap map => map.Count,
        IReadOnlyList<object?> list => list.Count,
        TemplateView view => view.Items.Count,
        TemplateUndefined => 0,
        TemplateLoop loop => loop.Length,
        _ => PlainText(value) is string text ? PythonText.Length(text) : null,
    };

    /// <summary>Items of a slice, as Python takes them.</summary>
    public static IEnumerable<object?> Slice(IReadOnlyList<object?> items, long? start, long? stop, long step)
    {
        (long first, long last) = SliceBounds(items.Count, start, stop, step);
        for (long i = first; step > 0 ? i < last : i > last; i += step)
        {
            yield return items[(int)i];
        }
    }

    /// <summary>The first place of a slice, and the one that ends it.</summary>
    public static (long First, long Last) SliceBounds(long count, long? start, long? stop, long step)
    {
        return (Bound(start, step > 0 ? 0 : count - 1), Bound(stop, step > 0 ? count : -1));

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

    /// <summary>Throws where values are nested deeper than the stack goes.</summary>
    public static void CheckDepth(int line)
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw TemplateError.Limit(line, "its values are nested too deep");
        }
    }

    private static bool AreEqual(IReadOnlyList<object?> first, IReadOnlyList<object?> second) =>
        IsShallow() && first.Count == second.Count && first.Zip(second).All(static pair => AreEqual(pair.First, pair.Second));

    private static bool IsShallow()
    {
        CheckDepth(0);
        return true;
    }
}
