using System.Globalization;
using LoKr.Core.IO;

namespace LoKr.Core.Chat;

/// <summary>The filters, tests, methods and functions that templates may use; the parser refuses every other one.</summary>
internal static class TemplateLibrary
{
    private const int LongestRange = 100_000;

    /// <summary>A filter or a method: the value comes first.</summary>
    public delegate object? ValueFunction(TemplateRun run, int line, object? value, TemplateArguments arguments);

    public static IReadOnlyDictionary<string, ValueFunction> Filters { get; } = new Dictionary<string, ValueFunction>(StringComparer.Ordinal)
    {
        ["tojson"] = static (run, line, value, arguments) => ToJson(run, line, value, arguments),
        ["length"] = static (_, line, value, _) => Length(line, value),
        ["count"] = static (_, line, value, _) => Length(line, value),
        ["trim"] = static (_, _, value, arguments) => Strip(TemplateValues.Text(value), arguments.Get(0, "chars"), left: true, right: true),
        ["string"] = static (_, _, value, _) => TemplateValues.Text(value),
        ["safe"] = static (_, _, value, _) => value,
        ["lower"] = static (_, _, value, _) => TemplateValues.Text(value).ToLowerInvariant(),
        ["upper"] = static (_, _, value, _) => TemplateValues.Text(value).ToUpperInvariant(),
        ["join"] = static (run, line, value, arguments) => Join(run, line, value, arguments),
        ["items"] = static (_, line, value, _) => value is TemplateUndefined ? new TemplateList() : Pairs(line, value),
        ["list"] = static (_, line, value, _) => new TemplateList(Items(line, value)),
        ["first"] = static (_, line, value, _) => Items(line, value) is [var first, ..] ? first : new TemplateUndefined("first"),
        ["last"] = static (_, line, value, _) => Items(line, value) is [.., var last] ? last : new TemplateUndefined("last"),
        ["default"] = static (_, _, value, arguments) => Default(value, arguments),
        ["d"] = static (_, _, value, arguments) => Default(value, arguments),
        ["min"] = static (_, line, value, _) => Sorted(line, Items(line, value)).DefaultIfEmpty(new TemplateUndefined("min")).First(),
        ["max"] = static (_, line, value, _) => Sorted(line, Items(line, value)).DefaultIfEmpty(new TemplateUndefined("max")).Last(),
        ["sort"] = static (_, line, value, arguments) => Sort(line, value, arguments),
        ["select"] = static (run, line, value, arguments) => Select(run, line, value, arguments, byAttribute: false, wanted: true),
        ["reject"] = static (run, line, value, arguments) => Select(run, line, value, arguments, byAttribute: false, wanted: false),
        ["selectattr"] = static (run, line, value, arguments) => Select(run, line, value, arguments, byAttribute: true, wanted: true),
        ["rejectattr"] = static (run, line, value, arguments) => Select(run, line, value, arguments, byAttribute: true, wanted: false),
    };

    public static IReadOnlyDictionary<string, Func<object?, TemplateArguments, bool>> Tests { get; } = new Dictionary<string, Func<object?, TemplateArguments, bool>>(StringComparer.Ordinal)
    {
        ["defined"] = static (value, _) => value is not TemplateUndefined,
        ["undefined"] = static (value, _) => value is TemplateUndefined,
        ["none"] = static (value, _) => value is null,
        ["string"] = static (value, _) => value is string,
        ["mapping"] = static (value, _) => value is TemplateMap,
        ["iterable"] = static (value, _) => TemplateValues.Items(value) is not null,
        ["sequence"] = static (value, _) => TemplateValues.Items(value) is not null,
        ["number"] = static (value, _) => TemplateValues.Number(value) is not null,
        ["integer"] = static (value, _) => value is long,
        ["boolean"] = static (value, _) => value is bool,
        ["true"] = static (value, _) => value is true,
        ["false"] = static (value, _) => value is false,
        ["equalto"] = static (value, arguments) => TemplateValues.AreEqual(value, arguments.Get(0, "other")),
        ["eq"] = static (value, arguments) => TemplateValues.AreEqual(value, arguments.Get(0, "other")),
        ["=="] = static (value, arguments) => TemplateValues.AreEqual(value, arguments.Get(0, "other")),
        ["ne"] = static (value, arguments) => !TemplateValues.AreEqual(value, arguments.Get(0, "other")),
        ["in"] = static (value, arguments) => TemplateRun.Contains(0, arguments.Get(0, "seq"), value),
    };

    public static IReadOnlyDictionary<string, ValueFunction> Methods { get; } = new Dictionary<string, ValueFunction>(StringComparer.Ordinal)
    {
        ["split"] = static (_, line, value, arguments) => Split(Str(line, value), arguments),
        ["strip"] = static (_, line, value, arguments) => Strip(Str(line, value), arguments.Get(0, "chars"), left: true, right: true),
        ["lstrip"] = static (_, line, value, arguments) => Strip(Str(line, value), arguments.Get(0, "chars"), left: true, right: false),
        ["rstrip"] = static (_, line, value, arguments) => Strip(Str(line, value), arguments.Get(0, "chars"), left: false, right: true),
        ["startswith"] = static (_, line, value, arguments) => Any(line, arguments, part => Str(line, value).StartsWith(part, StringComparison.Ordinal)),
        ["endswith"] = static (_, line, value, arguments) => Any(line, arguments, part => Str(line, value).EndsWith(part, StringComparison.Ordinal)),
        ["replace"] = static (run, line, value, arguments) => Replace(run, line, Str(line, value), arguments),
        ["lower"] = static (_, line, value, _) => Str(line, value).ToLowerInvariant(),
        ["upper"] = static (_, line, value, _) => Str(line, value).ToUpperInvariant(),
        ["items"] = static (_, line, value, _) => Pairs(line, value),
        ["keys"] = static (_, line, value, _) => new TemplateList(Map(line, value).Keys),
        ["values"] = static (_, line, value, _) => new TemplateList(Map(line, value).Values),
        ["get"] = static (_, line, value, arguments) => Map(line, value).TryGet(Str(line, arguments.Get(0, "key")), out object? found) ? found : arguments.Get(1, "default"),
    };

    public static IReadOnlyDictionary<string, TemplateFunction> Functions { get; } = new Dictionary<string, TemplateFunction>(StringComparer.Ordinal)
    {
        ["raise_exception"] = static (_, _, arguments) => throw ChatTemplate.Refused(TemplateValues.Text(arguments.Get(0, "message"))),
        ["strftime_now"] = static (run, line, arguments) => Time(run.Now, line, Str(line, arguments.Get(0, "format"))),
        ["namespace"] = static (_, line, arguments) => Namespace(line, arguments),
        ["range"] = static (_, line, arguments) => Range(line, arguments),
        ["dict"] = static (_, _, arguments) =>
        {
            TemplateMap map = new();
            foreach ((string key, object? value) in arguments.Named)
            {
                map[key] = value;
            }

            return map;
        },
    };

    private static string Str(int line, object? value) => value as string ?? throw TemplateError.Failed(line, $"a text is needed, not {Kind(value)}");

    private static TemplateMap Map(int line, object? value) => value as TemplateMap ?? throw TemplateError.Failed(line, $"a dictionary is needed, not {Kind(value)}");

    private static IReadOnlyList<object?> Items(int line, object? value) =>
        TemplateValues.Items(value) ?? throw TemplateError.Failed(line, $"a list is needed, not {Kind(value)}");

    /// <summary>A value in a message.</summary>
    public static string Kind(object? value) => value switch
    {
        null => "none",
        TemplateUndefined undefined => $"'{undefined.Name}', which is not defined",
        string => "a text",
        TemplateList => "a list",
        TemplateMap => "a dictionary",
        bool => "true or false",
        long or double => "a number",
        _ => "an object",
    };

    private static long Length(int line, object? value) => TemplateValues.Length(value) ?? throw TemplateError.Failed(line, $"{Kind(value)} has no length");

    private static string ToJson(TemplateRun run, int line, object? value, TemplateArguments arguments)
    {
        if (arguments.Positional.Count > 2 || arguments.Named.Keys.Any(static name => name is not ("indent" or "ensure_ascii")))
        {
            throw TemplateError.Unsupported(line, "an option of 'tojson' other than 'indent' and 'ensure_ascii'");
        }

        int? indent = TemplateValues.Integer(arguments.Get(1, "indent")) is long given and >= 0 and <= 20 ? (int)given : null;
        try
        {
            return run.Checked(line, PythonJson.Write(Plain(value), indent, TemplateValues.IsTrue(arguments.Get(0, "ensure_ascii", false))));
        }
        catch (ArgumentException exception)
        {
            throw TemplateError.Failed(line, exception.Message);
        }
    }

    private static object? Plain(object? value) => value switch
    {
        TemplateMap map => map.Select(static member => KeyValuePair.Create(member.Key, Plain(member.Value))).ToArray(),
        TemplateList list => list.Select(Plain).ToArray(),
        TemplateUndefined undefined => throw new ArgumentException($"'{undefined.Name}' is not defined and has no JSON form"),
        _ => value,
    };

    private static string Join(TemplateRun run, int line, object? value, TemplateArguments arguments)
    {
        if (arguments.Get(1, "attribute") is object attribute)
        {
            value = new TemplateList(Items(line, value).Select(item => Attribute(item, TemplateValues.Text(attribute))));
        }

        return run.Checked(line, string.Join(TemplateValues.Text(arguments.Get(0, "d", "")), Items(line, value).Select(TemplateValues.Text)));
    }

    private static object? Attribute(object? item, string name) => item is TemplateMap map && map.TryGet(name, out object? value) ? value : new TemplateUndefined(name);

    private static TemplateList Pairs(int line, object? value) => [.. Map(line, value).Select(static member => (object?)new TemplateList([member.Key, member.Value]))];

    private static object? Default(object? value, TemplateArguments arguments) =>
        value is TemplateUndefined || (TemplateValues.IsTrue(arguments.Get(1, "boolean", false)) && !TemplateValues.IsTrue(value)) ? arguments.Get(0, "default_value", "") : value;

    private static IEnumerable<object?> Sorted(int line, IEnumerable<object?> items) => items.Order(Comparer<object?>.Create((a, b) =>
        TemplateValues.Compare(a, b) ?? throw TemplateError.Failed(line, $"{Kind(a)} and {Kind(b)} have no order")));

    private static TemplateList Sort(int line, object? value, TemplateArguments arguments)
    {
        string? attribute = arguments.Get(2, "attribute") as string;
        bool sensitive = TemplateValues.IsTrue(arguments.Get(1, "case_sensitive", false));
        Comparer<object?> order = Comparer<object?>.Create((a, b) =>
            TemplateValues.Compare(a, b) ?? throw TemplateError.Failed(line, $"{Kind(a)} and {Kind(b)} have no order"));
        IEnumerable<object?> sorted = TemplateValues.IsTrue(arguments.Get(0, "reverse", false)) ? Items(line, value).OrderByDescending(Key, order) : Items(line, value).OrderBy(Key, order);
        return [.. sorted];

        object? Key(object? item)
        {
            object? key = attribute is null ? item : Attribute(item, attribute);
            return key is string text && !sensitive ? text.ToLowerInvariant() : key;
        }
    }

    private static TemplateList Select(TemplateRun run, int line, object? value, TemplateArguments arguments, bool byAttribute, bool wanted)
    {
        int first = byAttribute ? 1 : 0;
        string? name = arguments.Positional.Count > first ? arguments.Positional[first] as string : null;
        if (name is not null && !Tests.ContainsKey(name))
        {
            throw TemplateError.Unsupported(line, $"the test '{name}'");
        }

        TemplateArguments rest = new([.. arguments.Positional.Skip(first + 1)], arguments.Named);
        run.Step(line);
        return [.. Items(line, value).Where(item =>
        {
            object? tested = byAttribute ? Attribute(item, Str(line, arguments.Get(0, "attribute"))) : item;
            return wanted == (name is null ? TemplateValues.IsTrue(tested) : Tests[name](tested, rest));
        })];
    }

    private static string Strip(string text, object? characters, bool left, bool right)
    {
        string? set = characters as string;
        int start = 0;
        while (left && start < text.Length && IsStripped(text[start]))
        {
            start++;
        }

        int end = text.Length;
        while (right && end > start && IsStripped(text[end - 1]))
        {
            end--;
        }

        return text[start..end];

        bool IsStripped(char c) => set is null ? TemplateValues.IsSpace(c) : set.Contains(c, StringComparison.Ordinal);
    }

    private static TemplateList Split(string text, TemplateArguments arguments)
    {
        long most = TemplateValues.Integer(arguments.Get(1, "maxsplit")) ?? -1;
        int count = most < 0 ? int.MaxValue : (int)Math.Min(most + 1, int.MaxValue);
        return arguments.Get(0, "sep") is string separator && separator.Length > 0
            ? [.. text.Split(separator, count, StringSplitOptions.None)]
            : [.. Strip(text, null, left: true, right: true).Split((char[]?)null, count, StringSplitOptions.RemoveEmptyEntries)];
    }

    private static bool Any(int line, TemplateArguments arguments, Func<string, bool> holds) =>
        arguments.Get(0, "prefix") is TemplateList parts ? parts.Any(part => holds(Str(line, part))) : holds(Str(line, arguments.Get(0, "prefix")));

    private static string Replace(TemplateRun run, int line, string text, TemplateArguments arguments)
    {
        string old = Str(line, arguments.Get(0, "old"));
        string replacement = Str(line, arguments.Get(1, "new"));
        if (old.Length == 0)
        {
            throw TemplateError.Failed(line, "an empty text cannot be replaced");
        }

        if (TemplateValues.Integer(arguments.Get(2, "count")) is not long count || count < 0)
        {
            return run.Checked(line, text.Replace(old, replacement, StringComparison.Ordinal));
        }

        string[] parts = text.Split(old, (int)Math.Min(count + 1, int.MaxValue), StringSplitOptions.None);
        return run.Checked(line, string.Join(replacement, parts));
    }

    private static TemplateNamespace Namespace(int line, TemplateArguments arguments)
    {
        TemplateNamespace space = new();
        foreach ((string key, object? value) in arguments.Positional.SelectMany(map => Map(line, map)).Concat(arguments.Named))
        {
            space.Members[key] = value;
        }

        return space;
    }

    private static TemplateList Range(int line, TemplateArguments arguments)
    {
        long[] numbers = [.. arguments.Positional.Select(value => TemplateValues.Integer(value) ?? throw TemplateError.Failed(line, "a range needs whole numbers"))];
        (long start, long stop, long step) = numbers switch
        {
            [long only] => (0, only, 1),
            [long first, long end] => (first, end, 1),
            [long first, long end, not 0] => (first, end, numbers[2]),
            _ => throw TemplateError.Failed(line, "a range needs one to three numbers"),
        };
        TemplateList list = [];
        for (long i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            list.Add(list.Count < LongestRange ? i : throw TemplateError.Limit(line, "a range is too long"));
        }

        return list;
    }

    private static string Time(DateTime now, int line, string format)
    {
        System.Text.StringBuilder text = new();
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                text.Append(format[i]);
                continue;
            }

            string? pattern = format[++i] switch
            {
                'd' => "dd",
                'm' => "MM",
                'Y' => "yyyy",
                'y' => "yy",
                'b' => "MMM",
                'B' => "MMMM",
                'a' => "ddd",
                'A' => "dddd",
                'H' => "HH",
                'I' => "hh",
                'M' => "mm",
                'S' => "ss",
                'p' => "tt",
                '%' => "'%'",
                _ => throw TemplateError.Unsupported(line, $"the time format '%{format[i]}'"),
            };
            text.Append(now.ToString(pattern, CultureInfo.InvariantCulture));
        }

        return text.ToString();
    }
}
