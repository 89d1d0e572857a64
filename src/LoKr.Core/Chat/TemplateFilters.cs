using System.Globalization;
using System.Text;
using LoKr.Core.IO;

namespace LoKr.Core.Chat;

/// <summary>The filters that templates may use; the parser refuses every other one.</summary>
internal static class TemplateFilters
{
    // How much longer than its limit a text may be before it is truncated.
    private const int Leeway = 5;

    public static IReadOnlyDictionary<string, TemplateOperation> All { get; } = new Dictionary<string, TemplateOperation>(StringComparer.Ordinal)
    {
        ["abs"] = new("", static call => PythonNumbers.Compare(Number(call), 0L) is < 0 and not PythonNumbers.Unordered ? PythonNumbers.Negative(call.Value) : PythonNumbers.Calculate(call.Line, "+", call.Value, 0L)),
        ["batch"] = new("linecount! fill_with", static call => new TemplateGenerator(Batches(call, call.WholeOf(0, 0)))),
        ["capitalize"] = new("", static call => Soft(call, text => PythonText.Capitalize(call.Line, text))),
        ["center"] = new("width", static call => Soft(call, text => Center(call.Run, call.Line, text, call.WholeOf(0, 80), ' '))),
        ["count"] = new("", static call => Length(call)),
        ["d"] = new("default_value boolean", Default),
        ["default"] = new("default_value boolean", Default),
        ["dictsort"] = new("case_sensitive by reverse", SortedMembers),
        ["first"] = new("", static call => call.Items.DefaultIfEmpty(new TemplateUndefined("first")).First()),
        ["float"] = new("default", Float),
        ["format"] = new("*", static call => PythonFormat.Percent(call.Run, call.Line, call.Text, call.Given, takesMore: call.Given.Named.Count > 0)),
        ["groupby"] = new("attribute! default case_sensitive", Groups),
        ["indent"] = new("width first blank", Indent),
        ["int"] = new("default base", Whole),
        ["items"] = new("", static call => new TemplateGenerator(Members(call))),
        ["join"] = new("d attribute", static call => call.Run.Checked(call.Line, string.Join(
            TemplateValues.Text(call.Line, call.Get(0, "")), (call.Get(1) is null ? call.Items : call.Items.Select(Getter(call, 1))).Select(item => TemplateValues.Text(call.Line, item))))),
        ["last"] = new("", Last),
        ["length"] = new("", static call => Length(call)),
        ["list"] = new("", static call => new TemplateList(call.Items)),
        ["lower"] = new("", static call => Soft(call, PythonText.Lower)),
        ["map"] = new("*", static call => new TemplateGenerator(Mapped(call))),
        ["max"] = new("case_sensitive attribute", static call => Extreme(call, largest: true)),
        ["min"] = new("case_sensitive attribute", static call => Extreme(call, largest: false)),
        ["reject"] = new("*", static call => new TemplateGenerator(Selected(call, byAttribute: false, wanted: false))),
        ["rejectattr"] = new("*", static call => new TemplateGenerator(Selected(call, byAttribute: true, wanted: false))),
        ["replace"] = new("old! new! count", static call => Replaced(
            call.Run, call.Line, call.Text, TemplateValues.Text(call.Line, call.Get(0)), TemplateValues.Text(call.Line, call.Get(1)), call.Get(2) is null ? -1 : call.WholeOf(2, -1))),
        ["reverse"] = new("", Reversed),
        ["round"] = new("precision method", Round),
        ["safe"] = new("", static call => new TemplateMarkup(call.Text)),
        ["select"] = new("*", static call => new TemplateGenerator(Selected(call, byAttribute: false, wanted: true))),
        ["selectattr"] = new("*", static call => new TemplateGenerator(Selected(call, byAttribute: true, wanted: true))),
        ["slice"] = new("slices! fill_with", static call => new TemplateGenerator(Slices(call, call.WholeOf(0, 0)))),
        ["sort"] = new("reverse case_sensitive attribute", static call => new TemplateList(Ordered(call.Line, call.Items, SortKey(call), call.Flag(0)))),
        ["string"] = new("", static call => call.Value is TemplateMarkup ? call.Value : call.Text),
        ["sum"] = new("attribute start", static call => (call.Get(0) is null ? call.Items : call.Items.Select(Getter(call, 0)))
            .Aggregate(call.Get(1, 0L), (sum, item) => MathExpression.Calculate(call.Run, call.Line, "+", sum, item))),
        ["title"] = new("", static call => Soft(call, text => Title(call.Line, text))),
        ["tojson"] = new("ensure_ascii indent separators sort_keys", Json),
        ["trim"] = new("chars", static call => Soft(call, text => PythonText.Strip(text, call.Get(0) is null ? null : call.TextOf(0), left: true, right: true))),
        ["truncate"] = new("length killwords end leeway", Truncated),
        ["unique"] = new("case_sensitive attribute", static call => new TemplateGenerator(Unique(call))),
        ["upper"] = new("", static call => Soft(call, text => PythonText.Upper(call.Line, text))),
        ["wordcount"] = new("", static call => Words(call.Text)),
    };

    /// <summary>A text in the middle of so many characters.</summary>
    public static string Center(TemplateRun run, int line, string text, long width, char fill)
    {
        long pad = Math.Max(width - PythonText.Length(text), 0);
        long left = (pad / 2) + (pad & width & 1);
        return run.Repeat(line, fill.ToString(), left) + text + run.Repeat(line, fill.ToString(), pad - left);
    }

    /// <summary>A text with other parts in place of some, so many times at most; an empty part is found between all characters.</summary>
    public static string Replaced(TemplateRun run, int line, string text, string old, string replacement, long most)
    {
        if (old.Length > 0)
        {
            string[] parts = text.Split(old, most < 0 ? int.MaxValue : (int)Math.Min(most + 1, int.MaxValue), StringSplitOptions.None);
            return run.Joined(line, replacement, parts);
        }

        object?[] characters = [.. PythonText.Characters(text)];
        int places = most < 0 ? characters.Length + 1 : (int)Math.Min(most, characters.Length + 1);
        StringBuilder spread = new();
        for (int i = 0; i <= characters.Length; i++)
        {
            spread.Append(i < places ? replacement : "").Append(i < characters.Length ? (string)characters[i]! : "");
        }

        return run.Checked(line, spread.ToString());
    }

    private static object? Number(TemplateCall call) =>
        PythonNumbers.IsNumber(call.Value) ? call.Value : throw TemplateError.Failed(call.Line, $"a number is needed, not {TemplateValues.Kind(call.Value)}");

    // A text that is marked as safe stays so.
    private static object Soft(TemplateCall call, Func<string, string> change) => call.Value is TemplateMarkup markup
        ? new TemplateMarkup(change(markup.Text))
        : call.Run.Checked(call.Line, change(call.Text));

    private static long Length(TemplateCall call) =>
        TemplateValues.Length(call.Value) ?? throw TemplateError.Failed(call.Line, $"{TemplateValues.Kind(call.Value)} has no length");

    private static object? Default(TemplateCall call) => call.Value is TemplateUndefined || (call.Flag(1) && !TemplateValues.IsTrue(call.Value)) ? call.Get(0, "") : call.Value;

    /// <summary>Reads an attribute of an item: names with points between, or a place.</summary>
    private static Func<object?, object?> Getter(TemplateCall call, int index, object? otherwise = null) => Getter(call.Line, call.Get(index), otherwise);

    private static Func<object?, object?> Getter(int line, object? attribute, object? otherwise)
    {
        object[] parts = attribute switch
        {
            null => [],
            string names => [.. names.Split('.').Select(static name => name.Length > 0 && name.All(char.IsDigit) && long.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out long place) ? (object)place : name)],
            _ => [attribute],
        };
        return item =>
        {
            foreach (object part in parts)
            {
                item = TemplateLibrary.Item(line, item, part);
                item = item is TemplateUndefined && otherwise is not null ? otherwise : item;
            }

            return item;
        };
    }

    private static object? IgnoreCase(object? value) => value is string text ? PythonText.Lower(text) : value;

    private static Func<object?, object?> Key(TemplateCall call, int caseSensitive, int attribute, object? otherwise = null)
    {
        Func<object?, object?> getter = Getter(call, attribute, otherwise);
        return call.Flag(caseSensitive) ? getter : item => IgnoreCase(getter(item));
    }

    // Several attributes with commas between.
    private static Func<object?, object?> SortKey(TemplateCall call)
    {
        bool ignoresCase = !call.Flag(1);
        Func<object?, object?>[] getters = call.Get(2) is string names ? [.. names.Split(',').Select(name => Getter(call.Line, name, null))] : [Getter(call, 2)];
        return item => new TemplateList(getters.Select(getter => ignoresCase ? IgnoreCase(getter(item)) : getter(item)));
    }

    // Stable, as Python's sort; .NET's would put an error of the comparison into another.
    private static IEnumerable<object?> Ordered(int line, IEnumerable<object?> items, Func<object?, object?> key, bool isReversed)
    {
        (object? Key, object? Item)[] pairs = [.. items.Select(item => (key(item), item))];
        (object? Key, object? Item)[] merged = new (object? Key, object? Item)[pairs.Length];
        for (int width = 1; width < pairs.Length; width *= 2)
        {
            for (int start = 0; start < pairs.Length; start += 2 * width)
            {
                int middle = Math.Min(start + width, pairs.Length);
                int end = Math.Min(start + (2 * width), pairs.Length);
                (int left, int right) = (start, middle);
                for (int i = start; i < end; i++)
                {
                    merged[i] = left < middle && (right == end || !IsBefore(pairs[right].Key, pairs[left].Key)) ? pairs[left++] : pairs[right++];
                }
            }

            (pairs, merged) = (merged, pairs);
        }

        return pairs.Select(static pair => pair.Item);

        bool IsBefore(object? a, object? b)
        {
            int order = Order(line, a, b);
            return order != PythonNumbers.Unordered && (isReversed ? order > 0 : order < 0);
        }
    }

    private static int Order(int line, object? a, object? b) =>
        TemplateValues.Compare(a, b) ?? throw TemplateError.Failed(line, $"{TemplateValues.Kind(a)} and {TemplateValues.Kind(b)} have no order");

    private static object? Extreme(TemplateCall call, bool largest)
    {
        Func<object?, object?> key = Key(call, 0, 1);
        object? best = new TemplateUndefined(largest ? "max" : "min");
        object? bestKey = TemplateCall.Absent;
        foreach (object? item in call.Items)
        {
            object? itemKey = key(item);
            int order = ReferenceEquals(bestKey, TemplateCall.Absent) ? (largest ? 1 : -1)
                : Order(call.Line, itemKey, bestKey);
            if (largest ? order > 0 : order < 0 && order != PythonNumbers.Unordered)
            {
                (best, bestKey) = (item, itemKey);
            }
        }

        return best;
    }

    private static IEnumerable<object?> Unique(TemplateCall call)
    {
        Func<object?, object?> key = Key(call, 0, 1);
        HashSet<TemplateKey> seen = [];
        foreach (object? item in call.Items)
        {
            object? value = key(item);
            if (seen.Add(TemplateKey.IsKey(value) ? new(value) : throw TemplateError.Failed(call.Line, $"{TemplateValues.Kind(value)} cannot be told from others")))
            {
                yield return item;
            }
        }
    }

    private static TemplateList Groups(TemplateCall call)
    {
        Func<object?, object?> key = Key(call, 2, 0, call.Get(1));
        Func<object?, object?> name = Getter(call, 0, call.Get(1));
        TemplateList groups = [];
        object? before = TemplateCall.Absent;
        foreach (object? item in Ordered(call.Line, call.Items, key, isReversed: false))
        {
            object? current = key(item);
            if (ReferenceEquals(before, TemplateCall.Absent) || !TemplateValues.AreEqual(before, current))
            {
                groups.Add(new TemplateGroup(name(item), []));
                before = current;
            }

            ((TemplateList)((TemplateGroup)groups[^1]!)[1]!).Add(item);
        }

        return groups;
    }

    private static TemplateList SortedMembers(TemplateCall call)
    {
        TemplateMap map = call.Value as TemplateMap ?? throw TemplateError.Failed(call.Line, $"a dictionary is needed, not {TemplateValues.Kind(call.Value)}");
        int place = call.Get(1, "key") switch
        {
            "key" => 0,
            "value" => 1,
            _ => throw TemplateError.Failed(call.Line, "a dictionary is sorted by 'key' or 'value'"),
        };
        bool ignoresCase = !call.Flag(0);
        return new(Ordered(call.Line, Members(call), item => ignoresCase ? IgnoreCase(((TemplateList)item!)[place]) : ((TemplateList)item!)[place], call.Flag(2)));
    }

    // An error is one of the loop that takes the members.
    private static IEnumerable<object?> Members(TemplateCall call)
    {
        TemplateMap? map = call.Value is TemplateUndefined ? null : call.Value as TemplateMap ?? throw TemplateError.Failed(call.Line, $"a dictionary is needed, not {TemplateValues.Kind(call.Value)}");
        foreach ((object? key, object? value) in map ?? [])
        {
            yield return TemplateList.Tuple(key, value);
        }
    }

    private static object? Last(TemplateCall call) => call.Value switch
    {
        TemplateGenerator => throw TemplateError.Failed(call.Line, $"{TemplateValues.Kind(call.Value)} has no last item"),
        IReadOnlyList<object?> { Count: > 0 } list => list[^1],
        _ => call.Items.DefaultIfEmpty(new TemplateUndefined("last")).Last(),
    };

    private static object? Reversed(TemplateCall call) => call.Value switch
    {
        string text => PythonText.Slice(text, null, null, -1),
        TemplateMarkup => throw TemplateError.Unsupported(call.Line, "'reverse' of a text that 'safe' marks"),
        TemplateGenerator => new TemplateList(call.Items.Reverse()),
        _ => new TemplateGenerator(call.Items.ToArray().Reverse()),
    };

    private static IEnumerable<object?> Mapped(TemplateCall call)
    {
        if (!TemplateValues.IsTrue(call.Value))
        {
            yield break;
        }

        (IReadOnlyList<object?> positional, IReadOnlyDictionary<string, object?> named) = (call.Given.Positional, call.Given.Named);
        Func<object?, object?> change;
        if (positional.Count == 0 && named.TryGetValue("attribute", out object? attribute))
        {
            change = named.Keys.All(static name => name is "attribute" or "default")
                ? Getter(call.Line, attribute, named.GetValueOrDefault("default"))
                : throw TemplateError.Failed(call.Line, "'map' takes 'attribute' and 'default'");
        }
        else
        {
            string name = positional.Count > 0 ? positional[0] as string ?? "" : throw TemplateError.Failed(call.Line, "'map' needs a filter or an attribute");
            TemplateOperation filter = All.GetValueOrDefault(name) ?? throw TemplateError.Unsupported(call.Line, $"the filter '{name}'");
            TemplateArguments rest = new([.. positional.Skip(1)], named);
            change = item => filter.Call(call.Run, call.Line, name, item, rest);
        }

        foreach (object? item in call.Items)
        {
            yield return change(item);
        }
    }

    private static IEnumerable<object?> Selected(TemplateCall call, bool byAttribute, bool wanted)
    {
        if (!TemplateValues.IsTrue(call.Value))
        {
            yield break;
        }

        IReadOnlyList<object?> given = call.Given.Positional;
        int first = byAttribute ? 1 : 0;
        if (given.Count < first)
        {
            throw TemplateError.Failed(call.Line, "the name of an attribute is missing");
        }

        Func<object?, object?> getter = byAttribute ? Getter(call.Line, given[0], null) : static item => item;
        string? name = given.Count > first ? given[first] as string ?? "" : null;
        TemplateOperation? test = name is null ? null : TemplateTests.All.GetValueOrDefault(name) ?? throw TemplateError.Unsupported(call.Line, $"the test '{name}'");
        TemplateArguments rest = new([.. given.Skip(first + 1)], call.Given.Named);
        foreach (object? item in call.Items)
        {
            object? tested = getter(item);
            if (TemplateValues.IsTrue(test is null ? tested : test.Call(call.Run, call.Line, name!, tested, rest)) == wanted)
            {
                yield return item;
            }
        }
    }

    private static IEnumerable<object?> Batches(TemplateCall call, long count)
    {
        TemplateList batch = [];
        foreach (object? item in call.Items)
        {
            if (batch.Count == count)
            {
                yield return batch;
                batch = [];
            }

            batch.Add(item);
        }

        if (batch.Count > 0)
        {
            for (; call.Get(1) is object fill && batch.Count < count; call.Run.Step(call.Line))
            {
                batch.Add(fill);
            }

            yield return batch;
        }
    }

    private static IEnumerable<object?> Slices(TemplateCall call, long count)
    {
        object?[] items = [.. call.Items];
        if (count == 0)
        {
            throw TemplateError.Failed(call.Line, "a number is divided by 0");
        }

        (long size, long longer) = Math.DivRem(items.Length, count);
        for (long i = 0; i < count; i++)
        {
            call.Run.Step(call.Line);
            long start = (i * size) + Math.Min(i, longer);
            TemplateList slice = new(items.Skip((int)start).Take((int)size + (i < longer ? 1 : 0)));
            if (call.Get(1) is object fill && i >= longer)
            {
                slice.Add(fill);
            }

            yield return slice;
        }
    }

    private static object? Whole(TemplateCall call)
    {
        object? otherwise = call.Get(0, 0L);
        switch (call.Value)
        {
            case TemplateUndefined undefined:
                throw TemplateError.Failed(call.Line, $"'{undefined.Name}' is not defined");
            case double number:
                return double.IsNaN(number) ? otherwise : double.IsInfinity(number) ? throw TemplateError.Failed(call.Line, "infinity is not a whole number") : PythonNumbers.Cut(number);
            case string text:
                return PythonNumbers.ReadWhole(text, (int)call.WholeOf(1, 10)) ?? (PythonNumbers.ReadFloat(text) is double read && double.IsFinite(read) ? PythonNumbers.Cut(read) : otherwise);
            default:
                return PythonNumbers.Whole(call.Value) is System.Numerics.BigInteger whole ? PythonNumbers.Value(whole) : otherwise;
        }
    }

    private static object? Float(TemplateCall call) => call.Value switch
    {
        TemplateUndefined undefined => throw TemplateError.Failed(call.Line, $"'{undefined.Name}' is not defined"),
        string text => PythonNumbers.ReadFloat(text) ?? call.Get(0, 0.0),
        _ => PythonNumbers.Approximate(call.Value) ?? call.Get(0, 0.0),
    };

    private static object? Round(TemplateCall call)
    {
        int decimals = (int)Math.Clamp(call.WholeOf(0, 0), -400, 400);
        object? value = Number(call);
        switch (call.Get(1, "common"))
        {
            case "common":
                return value is double number ? PythonNumbers.Round(number, decimals)
                    : decimals >= 0 ? PythonNumbers.Calculate(call.Line, "+", value, 0L)
                    : throw TemplateError.Unsupported(call.Line, "'round' of an integer to tens");
            case "ceil" or "floor":
                double unit = Math.Pow(10, decimals);
                double scaled = PythonNumbers.Approximate(value)!.Value * unit;
                return (call.Get(1) is "ceil" ? Math.Ceiling(scaled) : Math.Floor(scaled)) / unit;
            default:
                throw TemplateError.Failed(call.Line, "a number is rounded by 'common', 'ceil' or 'floor'");
        }
    }

    private static string Indent(TemplateCall call)
    {
        string text = TemplateValues.PlainText(call.Value) ?? throw TemplateError.Failed(call.Line, $"a text is needed, not {TemplateValues.Kind(call.Value)}");
        string space = TemplateValues.PlainText(call.Get(0)) ?? call.Run.Repeat(call.Line, " ", call.WholeOf(0, 4));
        IEnumerable<string> lines = PythonText.Lines(text + "\n", withEnds: false).Cast<string>();
        bool blank = call.Flag(2);
        return call.Run.Checked(call.Line, string.Join('\n', lines.Select((line, i) => (i == 0 ? call.Flag(1) : blank || line.Length > 0) ? space + line : line)));
    }

    // A word begins behind a space, a hyphen or an opening bracket.
    private static string Title(int line, string text)
    {
        StringBuilder titled = new();
        int start = 0;
        while (start < text.Length)
        {
            bool isBreak = IsBreak(text[start]);
            int end = start + 1;
            while (end < text.Length && IsBreak(text[end]) == isBreak)
            {
                end++;
            }

            string word = text[start..end];
            int first = char.IsHighSurrogate(word[0]) && word.Length > 1 ? 2 : 1;
            titled.Append(isBreak ? word : PythonText.Upper(line, word[..first]) + PythonText.Lower(word[first..]));
            start = end;
        }

        return titled.ToString();

        static bool IsBreak(char c) => c is '-' or '(' or '{' or '[' or '<' || PythonText.IsSpace(c);
    }

    private static object? Truncated(TemplateCall call)
    {
        string end = call.Has(2) ? call.TextOf(2) : "...";
        long kept = call.WholeOf(0, 255) - PythonText.Length(end);
        long leeway = call.Get(3) is null ? Leeway : call.WholeOf(3, Leeway);
        if (kept < 0 || leeway < 0)
        {
            throw TemplateError.Failed(call.Line, "a text is truncated to less than its end");
        }

        if (Length(call) <= call.WholeOf(0, 255) + leeway)
        {
            return call.Value;
        }

        string text = TemplateValues.PlainText(call.Value) ?? throw TemplateError.Failed(call.Line, $"a text is needed, not {TemplateValues.Kind(call.Value)}");
        string cut = PythonText.Slice(text, null, kept, 1);
        return call.Flag(1) ? cut + end : (cut.LastIndexOf(' ') is int space and >= 0 ? cut[..space] : cut) + end;
    }

    private static long Words(string text)
    {
        long count = 0;
        bool isInside = false;
        foreach (Rune rune in text.EnumerateRunes())
        {
            bool isWord = rune.Value == '_' || Rune.IsLetterOrDigit(rune) || Rune.IsNumber(rune);
            count += isWord && !isInside ? 1 : 0;
            isInside = isWord;
        }

        return count;
    }

    private static string Json(TemplateCall call)
    {
        string? indent = call.Get(1) is null ? null : TemplateValues.PlainText(call.Get(1)) ?? call.Run.Repeat(call.Line, " ", call.WholeOf(1, 0));
        PythonJson.Form form = new() { Indent = indent, AsciiOnly = call.Flag(0), TakesInfinity = true };
        if (call.Get(2) is object separators)
        {
            form = separators is TemplateList { Count: 2 } pair && pair[0] is string items && pair[1] is string keys
                ? form with { ItemSeparator = items, KeySeparator = keys }
                : throw TemplateError.Failed(call.Line, "separators of JSON are two texts");
        }

        return call.Run.Checked(call.Line, PythonJson.Write(JsonOf(call.Run, call.Line, call.Value, call.Flag(3)), form));
    }

    private static object? JsonOf(TemplateRun run, int line, object? value, bool sortsKeys)
    {
        run.Step(line);
        TemplateValues.CheckDepth(line);
        return value switch
        {
            TemplateMap map => (sortsKeys ? Ordered(line, map.Keys, static key => key, isReversed: false) : map.Keys)
                .Select(key => KeyValuePair.Create(JsonKey(line, key), JsonOf(run, line, map.TryGet(key, out object? member) ? member : null, sortsKeys))).ToArray(),
            TemplateList list => list.Select(item => JsonOf(run, line, item, sortsKeys)).ToArray(),
            TemplateMarkup markup => markup.Text,
            null or string or bool or long or double or System.Numerics.BigInteger => value,
            _ => throw TemplateError.Failed(line, $"{TemplateValues.Kind(value)} has no JSON form"),
        };
    }

    private static string JsonKey(int line, object? key) => key switch
    {
        string text => text,
        null => "null",
        bool flag => flag ? "true" : "false",
        long or double or System.Numerics.BigInteger => TemplateValues.Represent(line, key),
        _ => throw TemplateError.Failed(line, $"{TemplateValues.Kind(key)} is not a key of JSON"),
    };
}
