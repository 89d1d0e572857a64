using System.Globalization;
using System.Text;

namespace LoKr.Core.Chat;

/// <summary>Members of values that a template reaches, and the functions that every template has.</summary>
internal static class TemplateLibrary
{
    private const int LongestRange = 100_000;

    public static IReadOnlyDictionary<string, TemplateFunction> Functions { get; } = new Dictionary<string, TemplateFunction>(StringComparer.Ordinal)
    {
        ["dict"] = static (run, line, arguments) => Members(run, line, arguments, new()),
        ["namespace"] = static (run, line, arguments) => Namespace(run, line, arguments),
        ["raise_exception"] = Bind("raise_exception", new("message!", static call => throw ChatTemplate.Refused(TemplateValues.Text(call.Line, call.Get(0))))),
        ["range"] = Bind("range", new("_start! _stop _step", Range)),
        ["strftime_now"] = Bind("strftime_now", new("format!", static call => Time(call.Run.Now, call.Line, call.TextOf(0)))),
    };

    /// <summary>An attribute of a value: a method, otherwise a member.</summary>
    public static object? Attribute(int line, object? target, string name) => target switch
    {
        TemplateUndefined when name.StartsWith("__", StringComparison.Ordinal) => new TemplateUndefined(name),
        TemplateUndefined missing => throw TemplateError.Failed(line, $"'{missing.Name}' is not defined, so it has no '{name}'"),
        // The sandbox of the reference hides what begins so.
        TemplateNamespace space => !name.StartsWith('_') && space.Members.TryGet(name, out object? value) ? value : new TemplateUndefined(name),
        TemplateLoop loop => loop.Attribute(name),
        TemplateGroup group when name is "grouper" or "list" => group[name is "grouper" ? 0 : 1],
        long or double or bool or System.Numerics.BigInteger when name is "real" or "imag" or "numerator" or "denominator" => throw TemplateError.Unsupported(line, $"'{name}' of a number"),
        _ when name.StartsWith("__", StringComparison.Ordinal) => new TemplateUndefined(name),
        _ when TemplateMethods.IsRefused(name) && target is string or TemplateMarkup => throw TemplateError.Unsupported(line, $"the method '{name}'"),
        _ => TemplateMethods.Find(target, name) ?? (target is TemplateMap map && map.TryGet(name, out object? value) ? value : new TemplateUndefined(name)),
    };

    /// <summary>An item of a value by its key or place; otherwise the attribute of this name.</summary>
    public static object? Item(int line, object? target, object? index)
    {
        switch (target)
        {
            case TemplateUndefined missing:
                throw TemplateError.Failed(line, $"'{missing.Name}' is not defined");
            case TemplateMap map when TemplateKey.IsKey(index) && map.TryGet(index, out object? value):
                return value;
            case IReadOnlyList<object?> list when TemplateValues.Integer(index) is long place:
                place = place < 0 ? place + list.Count : place;
                return place >= 0 && place < list.Count ? list[(int)place] : new TemplateUndefined(string.Create(CultureInfo.InvariantCulture, $"item {index}"));
            case string text when TemplateValues.Integer(index) is long place:
                return (object?)PythonText.At(text, place) ?? new TemplateUndefined(string.Create(CultureInfo.InvariantCulture, $"item {index}"));
            default:
                return TemplateValues.PlainText(index) is string name ? Attribute(line, target, name) : new TemplateUndefined(index is null ? "none" : TemplateValues.Kind(index));
        }
    }

    /// <summary>Whether a text, a list or the keys of a dictionary hold a value.</summary>
    public static bool Contains(int line, object? container, object? value) => container switch
    {
        _ when TemplateValues.PlainText(container) is string text => TemplateValues.PlainText(value) is string part
            ? text.Contains(part, StringComparison.Ordinal)
            : throw TemplateError.Failed(line, $"a text cannot hold {TemplateValues.Kind(value)}"),
        TemplateMap map => TemplateKey.IsKey(value) ? map.Contains(value) : throw TemplateError.Failed(line, $"{TemplateValues.Kind(value)} is not a key"),
        TemplateLoop => throw TemplateError.Unsupported(line, "'in' of the loop"),
        _ => (TemplateValues.Iterate(container) ?? throw TemplateError.Failed(line, $"{TemplateValues.Kind(container)} cannot hold a value"))
            .Any(item => TemplateValues.AreEqual(item, value)),
    };

    private static TemplateFunction Bind(string name, TemplateOperation operation) => (run, line, arguments) => operation.Call(run, line, name, null, arguments);

    private static TemplateNamespace Namespace(TemplateRun run, int line, TemplateArguments arguments)
    {
        TemplateNamespace space = new();
        Members(run, line, arguments, space.Members);
        return space;
    }

    // A dictionary, or pairs, and named members.
    private static TemplateMap Members(TemplateRun run, int line, TemplateArguments arguments, TemplateMap into)
    {
        if (arguments.Positional.Count > 1)
        {
            throw TemplateError.Failed(line, "a dictionary is made of one other at most");
        }

        foreach (object? source in arguments.Positional)
        {
            IEnumerable<object?> pairs = source is TemplateMap map ? map.Select(static member => (object?)TemplateList.Tuple(member.Key, member.Value))
                : TemplateValues.Iterate(source) ?? throw TemplateError.Failed(line, $"a dictionary is needed, not {TemplateValues.Kind(source)}");
            foreach (object? pair in pairs)
            {
                run.Step(line);
                object?[] both = [.. TemplateValues.Iterate(pair) ?? []];
                into[both.Length == 2 && TemplateKey.IsKey(both[0]) ? both[0] : throw TemplateError.Failed(line, $"a pair of key and value is needed, not {TemplateValues.Kind(pair)}")] = both[1];
            }
        }

        foreach ((string key, object? value) in arguments.Named)
        {
            into[key] = value;
        }

        return into;
    }

    private static TemplateRange Range(TemplateCall call)
    {
        (long start, long stop, long step) = call.Has(1) ? (call.WholeOf(0, 0), call.WholeOf(1, 0), call.WholeOf(2, 1)) : (0, call.WholeOf(0, 0), 1);
        if (step == 0)
        {
            throw TemplateError.Failed(call.Line, "the step of a range is 0");
        }

        decimal span = step > 0 ? (decimal)stop - start : (decimal)start - stop;
        decimal count = span <= 0 ? 0 : Math.Ceiling(span / Math.Abs((decimal)step));
        return count <= LongestRange ? new TemplateRange(start, step, (int)count) { Stop = stop } : throw TemplateError.Limit(call.Line, "a range is too long");
    }

    private static string Time(DateTime now, int line, string format)
    {
        StringBuilder text = new();
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                text.Append(format[i]);
                continue;
            }

            // GNU's mark for a number without the zero in front.
            bool isShort = format[++i] == '-' && i + 1 < format.Length;
            char part = isShort ? format[++i] : format[i];
            string written = part switch
            {
                'n' => "\n",
                't' => "\t",
                '%' => "%",
                'j' => now.DayOfYear.ToString("D3", CultureInfo.InvariantCulture),
                'w' => ((int)now.DayOfWeek).ToString(CultureInfo.InvariantCulture),
                'u' => (now.DayOfWeek == DayOfWeek.Sunday ? 7 : (int)now.DayOfWeek).ToString(CultureInfo.InvariantCulture),
                'e' => now.Day.ToString(CultureInfo.InvariantCulture).PadLeft(2),
                // A time without a zone has none.
                'Z' or 'z' => "",
                _ => now.ToString(part switch
                {
                    'd' => "dd",
                    'm' => "MM",
                    'Y' => "yyyy",
                    'y' => "yy",
                    'b' or 'h' => "MMM",
                    'B' => "MMMM",
                    'a' => "ddd",
                    'A' => "dddd",
                    'H' => "HH",
                    'I' => "hh",
                    'M' => "mm",
                    'S' => "ss",
                    'f' => "ffffff",
                    'p' => "tt",
                    'F' => "yyyy-MM-dd",
                    'T' => "HH:mm:ss",
                    'R' => "HH:mm",
                    'D' or 'x' => "MM/dd/yy",
                    'X' => "HH:mm:ss",
                    _ => throw TemplateError.Unsupported(line, $"the time format '%{format[i]}'"),
                }, CultureInfo.InvariantCulture),
            };
            text.Append(!isShort ? written
                : part is 'd' or 'm' or 'y' or 'H' or 'I' or 'M' or 'S' or 'j' ? written.TrimStart('0') is { Length: > 0 } digits ? digits : "0"
                : throw TemplateError.Unsupported(line, $"the time format '%-{part}'"));
        }

        return text.ToString();
    }
}
