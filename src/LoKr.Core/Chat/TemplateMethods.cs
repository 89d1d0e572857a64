using System.Globalization;
using System.Text;

namespace LoKr.Core.Chat;

/// <summary>The methods of texts, dictionaries and lists that templates may call; those that change a dictionary or a list are refused, as the reference does.</summary>
internal static class TemplateMethods
{
    // These exist, and nothing that templates do with them is interpreted.
    private static readonly HashSet<string> s_refused = new(StringComparer.Ordinal)
    {
        "casefold", "encode", "expandtabs", "format_map", "fromkeys", "isidentifier", "isnumeric", "isprintable", "maketrans", "translate",
    };

    // The sandbox of the reference hides them.
    private static readonly HashSet<string> s_changing = new(StringComparer.Ordinal)
    {
        "append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update",
    };

    // These leave the mark of 'safe' on a text; others that make texts escape their arguments.
    private static readonly HashSet<string> s_marked = new(StringComparer.Ordinal) { "capitalize", "lower", "lstrip", "rstrip", "strip", "swapcase", "title", "upper" };

    private static readonly Dictionary<string, TemplateOperation> s_text = new(StringComparer.Ordinal)
    {
        ["capitalize"] = new("", static call => PythonText.Capitalize(call.Line, call.Text)),
        ["center"] = new("_width! _fillchar", static call => TemplateFilters.Center(call.Run, call.Line, call.Text, call.WholeOf(0, 0), Fill(call, 1))),
        ["count"] = new("_sub! _start _end", static call => Count(Part(call, 1, 2).Text, call.TextOf(0))),
        ["endswith"] = new("_suffix! _start _end", static call => Any(call, static (text, part) => text.EndsWith(part, StringComparison.Ordinal))),
        ["find"] = new("_sub! _start _end", static call => Find(call, fromRight: false)),
        ["format"] = new("*", static call => PythonFormat.Braces(call.Run, call.Line, call.Text, call.Given)),
        ["index"] = new("_sub! _start _end", static call => Found(call, Find(call, fromRight: false))),
        ["isalnum"] = new("", static call => PythonText.All(call.Text, static rune => Rune.IsLetter(rune) || Rune.IsNumber(rune))),
        ["isalpha"] = new("", static call => PythonText.All(call.Text, Rune.IsLetter)),
        ["isascii"] = new("", static call => Ascii.IsValid(call.Text)),
        ["isdecimal"] = new("", static call => PythonText.All(call.Text, Rune.IsDigit)),
        ["isdigit"] = new("", static call => PythonText.All(call.Text, rune => Rune.IsDigit(rune) || (Rune.IsNumber(rune)
            ? throw TemplateError.Unsupported(call.Line, $"'isdigit' of '{rune}'")
            : false))),
        ["islower"] = new("", static call => PythonText.IsLower(call.Text)),
        ["isspace"] = new("", static call => call.Text.Length > 0 && call.Text.All(PythonText.IsSpace)),
        ["istitle"] = new("", static call => PythonText.IsTitled(call.Text)),
        ["isupper"] = new("", static call => PythonText.IsUpper(call.Text)),
        ["join"] = new("_iterable!", static call => call.Run.Joined(call.Line, call.Text, call.ItemsOf(call.Get(0)).Select(item => Str(call.Line, item)))),
        ["ljust"] = new("_width! _fillchar", static call => call.Text + Padding(call, Fill(call, 1))),
        ["lower"] = new("", static call => PythonText.Lower(call.Text)),
        ["lstrip"] = new("_chars", static call => Strip(call, left: true, right: false)),
        ["partition"] = new("_sep!", static call => Partition(call, call.Text.IndexOf(Separator(call), StringComparison.Ordinal), fromRight: false)),
        ["removeprefix"] = new("_prefix!", static call => call.Text.StartsWith(call.TextOf(0), StringComparison.Ordinal) ? call.Text[call.TextOf(0).Length..] : call.Text),
        ["removesuffix"] = new("_suffix!", static call => call.Text.EndsWith(call.TextOf(0), StringComparison.Ordinal) ? call.Text[..^call.TextOf(0).Length] : call.Text),
        ["replace"] = new("_old! _new! _count", static call => TemplateFilters.Replaced(call.Run, call.Line, call.Text, call.TextOf(0), call.TextOf(1), call.WholeOf(2, -1))),
        ["rfind"] = new("_sub! _start _end", static call => Find(call, fromRight: true)),
        ["rindex"] = new("_sub! _start _end", static call => Found(call, Find(call, fromRight: true))),
        ["rjust"] = new("_width! _fillchar", static call => Padding(call, Fill(call, 1)) + call.Text),
        ["rpartition"] = new("_sep!", static call => Partition(call, call.Text.LastIndexOf(Separator(call), StringComparison.Ordinal), fromRight: true)),
        ["rsplit"] = new("sep maxsplit", static call => Split(call, fromRight: true)),
        ["rstrip"] = new("_chars", static call => Strip(call, left: false, right: true)),
        ["split"] = new("sep maxsplit", static call => Split(call, fromRight: false)),
        ["splitlines"] = new("keepends", static call => PythonText.Lines(call.Text, call.Flag(0))),
        ["startswith"] = new("_prefix! _start _end", static call => Any(call, static (text, part) => text.StartsWith(part, StringComparison.Ordinal))),
        ["strip"] = new("_chars", static call => Strip(call, left: true, right: true)),
        ["swapcase"] = new("", static call => PythonText.SwapCase(call.Line, call.Text)),
        ["title"] = new("", static call => PythonText.Titled(call.Line, call.Text)),
        ["upper"] = new("", static call => PythonText.Upper(call.Line, call.Text)),
        ["zfill"] = new("_width!", static call => call.Text.StartsWith('-') || call.Text.StartsWith('+') ? call.Text[..1] + Padding(call, '0') + call.Text[1..] : Padding(call, '0') + call.Text),
    };

    private static readonly Dictionary<string, TemplateOperation> s_map = new(StringComparer.Ordinal)
    {
        ["copy"] = new("", static call => Copy((TemplateMap)call.Value!)),
        ["get"] = new("_key! _default", static call => !TemplateKey.IsKey(call.Get(0)) ? throw TemplateError.Failed(call.Line, $"{TemplateValues.Kind(call.Get(0))} is not a key")
            : ((TemplateMap)call.Value!).TryGet(call.Get(0), out object? found) ? found
            : call.Get(1)),
        ["items"] = new("", static call => new TemplateView("dict_items", [.. ((TemplateMap)call.Value!).Select(static member => (object?)TemplateList.Tuple(member.Key, member.Value))])),
        ["keys"] = new("", static call => new TemplateView("dict_keys", [.. ((TemplateMap)call.Value!).Keys])),
        ["values"] = new("", static call => new TemplateView("dict_values", [.. ((TemplateMap)call.Value!).Values])),
    };

    private static readonly Dictionary<string, TemplateOperation> s_list = new(StringComparer.Ordinal)
    {
        ["copy"] = new("", static call => new TemplateList((TemplateList)call.Value!)),
        ["count"] = new("_value!", static call => (long)((TemplateList)call.Value!).Count(item => TemplateValues.AreEqual(item, call.Get(0)))),
        ["index"] = new("_value!", static call => ((TemplateList)call.Value!).FindIndex(item => TemplateValues.AreEqual(item, call.Get(0))) is int place and >= 0
            ? (long)place
            : throw TemplateError.Failed(call.Line, "the list does not hold the value")),
    };

    /// <summary>Whether templates may call a method of this name.</summary>
    public static bool IsKnown(string name) => s_text.ContainsKey(name) || s_map.ContainsKey(name) || s_list.ContainsKey(name) || s_changing.Contains(name);

    /// <summary>Whether some value has a method of this name that is not interpreted.</summary>
    public static bool IsRefused(string name) => s_refused.Contains(name);

    /// <summary>A method of a value; what is not there where the sandbox of the reference hides it; null where the value has none of this name.</summary>
    public static object? Find(object? target, string name)
    {
        Dictionary<string, TemplateOperation>? methods = target switch
        {
            string or TemplateMarkup => s_text,
            TemplateMap => s_map,
            TemplateList => s_list,
            _ => null,
        };
        if (methods is null || (name == "copy" && target is TemplateList { IsTuple: true }))
        {
            return null;
        }

        if (methods.TryGetValue(name, out TemplateOperation? method))
        {
            TemplateFunction function = (run, line, arguments) => Counted(run, line, method.Call(run, line, name, target, arguments)) switch
            {
                var made when target is not TemplateMarkup || made is bool or long => made,
                string text when s_marked.Contains(name) => new TemplateMarkup(text),
                _ => throw TemplateError.Unsupported(line, $"'{name}' of a text that 'safe' marks"),
            };
            return function;
        }

        bool isHidden = target is TemplateMap ? name is "clear" or "pop" or "popitem" or "setdefault" or "update"
            : target is TemplateList { IsTuple: false } && name is "append" or "clear" or "extend" or "insert" or "pop" or "remove" or "reverse" or "sort";
        return isHidden ? new TemplateUndefined(name) : null;
    }

    // What a method makes counts: every character of a text, every item of a list.
    private static object? Counted(TemplateRun run, int line, object? made)
    {
        run.Steps(line, made is TemplateList list ? list.Count : 0);
        return made is string text ? run.Checked(line, text) : made;
    }

    private static TemplateMap Copy(TemplateMap map)
    {
        TemplateMap copy = new();
        foreach ((object? key, object? value) in map)
        {
            copy[key] = value;
        }

        return copy;
    }

    private static string Str(int line, object? value) => TemplateValues.PlainText(value) ?? throw TemplateError.Failed(line, $"a text is needed, not {TemplateValues.Kind(value)}");

    private static string Strip(TemplateCall call, bool left, bool right) => PythonText.Strip(call.Text, call.Get(0) is null ? null : call.TextOf(0), left, right);

    private static string Separator(TemplateCall call) => call.TextOf(0) is { Length: > 0 } separator ? separator : throw TemplateError.Failed(call.Line, "a separator is empty");

    private static TemplateList Split(TemplateCall call, bool fromRight) => call.Get(0) is null
        ? PythonText.Split(call.Text, call.WholeOf(1, -1), fromRight)
        : PythonText.Split(call.Text, Separator(call), call.WholeOf(1, -1), fromRight);

    private static TemplateList Partition(TemplateCall call, int at, bool fromRight) => at >= 0 ? TemplateList.Tuple(call.Text[..at], call.TextOf(0), call.Text[(at + call.TextOf(0).Length)..])
        : fromRight ? TemplateList.Tuple("", "", call.Text)
        : TemplateList.Tuple(call.Text, "", "");

    // The part of a text between two places, and where it begins; nothing where it begins behind the end.
    private static (string Text, long Start, bool IsInside) Part(TemplateCall call, int start, int end)
    {
        long length = PythonText.Length(call.Text);
        long? from = call.Get(start) is null ? null : call.WholeOf(start, 0);
        long? to = call.Get(end) is null ? null : call.WholeOf(end, 0);
        (long first, long last) = TemplateValues.SliceBounds(length, from, to, 1);
        return (first == 0 && last == length ? call.Text : PythonText.Slice(call.Text, first, last, 1), first, from is not long given || given <= length);
    }

    private static bool Any(TemplateCall call, Func<string, string, bool> holds)
    {
        (string text, _, bool isInside) = Part(call, 1, 2);
        return call.Get(0) is TemplateList { IsTuple: true } parts
            ? parts.Exists(part => holds(text, Str(call.Line, part)) && isInside)
            : holds(text, call.TextOf(0)) && isInside;
    }

    private static long Count(string text, string part)
    {
        if (part.Length == 0)
        {
            return PythonText.Length(text) + 1;
        }

        long count = 0;
        for (int at = text.IndexOf(part, StringComparison.Ordinal); at >= 0; at = text.IndexOf(part, at + part.Length, StringComparison.Ordinal))
        {
            count++;
        }

        return count;
    }

    private static long Find(TemplateCall call, bool fromRight)
    {
        (string text, long start, bool isInside) = Part(call, 1, 2);
        int at = !isInside ? -1 : fromRight ? text.LastIndexOf(call.TextOf(0), StringComparison.Ordinal) : text.IndexOf(call.TextOf(0), StringComparison.Ordinal);
        return at < 0 ? -1 : start + PythonText.PlaceOf(text, at);
    }

    private static long Found(TemplateCall call, long place) => place >= 0 ? place : throw TemplateError.Failed(call.Line, "the text does not hold the other");

    private static char Fill(TemplateCall call, int index) => !call.Has(index) ? ' '
        : call.TextOf(index) is [char fill] ? fill
        : throw TemplateError.Failed(call.Line, "a text is filled with one character");

    private static string Padding(TemplateCall call, char fill) => call.Run.Repeat(call.Line, fill.ToString(CultureInfo.InvariantCulture), call.WholeOf(0, 0) - PythonText.Length(call.Text));
}
