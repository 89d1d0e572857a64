using System.Globalization;
using System.Text;

namespace LoKr.Core.Chat;

/// <summary>Python's <c>str</c>: by code points, with its white space, its cases and its notation.</summary>
internal static class PythonText
{
    // Upper cases of more than one letter; those of Greek letters with several marks are refused.
    private static readonly Dictionary<int, string> s_longUpper = new()
    {
        ['ß'] = "SS", ['ŉ'] = "\u02BCN", ['ǰ'] = "J\u030C", ['\u0390'] = "\u0399\u0308\u0301", ['\u03B0'] = "\u03A5\u0308\u0301", ['\u0587'] = "\u0535\u0552",
        ['\u1E96'] = "H\u0331", ['\u1E97'] = "T\u0308", ['\u1E98'] = "W\u030A", ['\u1E99'] = "Y\u030A", ['\u1E9A'] = "A\u02BE",
        ['\uFB00'] = "FF", ['\uFB01'] = "FI", ['\uFB02'] = "FL", ['\uFB03'] = "FFI", ['\uFB04'] = "FFL", ['\uFB05'] = "ST", ['\uFB06'] = "ST",
        ['\uFB13'] = "\u0544\u0546", ['\uFB14'] = "\u0544\u0535", ['\uFB15'] = "\u0544\u053B", ['\uFB16'] = "\u054E\u0546", ['\uFB17'] = "\u0544\u053D",
    };

    /// <summary>White space of Python's <c>str.strip</c>.</summary>
    public static bool IsSpace(char c) => char.IsWhiteSpace(c) || c is >= '\u001C' and <= '\u001F';

    /// <summary>The characters of a text, each as a text.</summary>
    public static IEnumerable<object?> Characters(string text)
    {
        foreach (Rune rune in text.EnumerateRunes())
        {
            yield return rune.ToString();
        }
    }

    /// <summary>Number of code points.</summary>
    public static long Length(string text) => IsBasic(text) ? text.Length : text.EnumerateRunes().Count();

    /// <summary>The character at a place, or null behind the end.</summary>
    public static string? At(string text, long place)
    {
        long at = place < 0 ? place + Length(text) : place;
        return at < 0 ? null
            : IsBasic(text) ? (at < text.Length ? text[(int)at].ToString() : null)
            : text.EnumerateRunes().Skip((int)Math.Min(at, int.MaxValue)).Select(static rune => rune.ToString()).FirstOrDefault();
    }

    /// <summary>A slice.</summary>
    public static string Slice(string text, long? start, long? stop, long step)
    {
        if (!IsBasic(text))
        {
            return string.Concat(TemplateValues.Slice([.. Characters(text)], start, stop, step));
        }

        (long first, long last) = TemplateValues.SliceBounds(text.Length, start, stop, step);
        if (step == 1)
        {
            return last > first ? text[(int)first..(int)last] : "";
        }

        StringBuilder slice = new();
        for (long i = first; step > 0 ? i < last : i > last; i += step)
        {
            slice.Append(text[(int)i]);
        }

        return slice.ToString();
    }

    /// <summary>The number of code points before a place in UTF-16.</summary>
    public static long PlaceOf(string text, int index) => index < 0 ? -1 : Length(text[..index]);

    /// <summary>The order by code points.</summary>
    public static int Compare(string a, string b)
    {
        int at = a.AsSpan().CommonPrefixLength(b);
        if (at == a.Length || at == b.Length)
        {
            return a.Length.CompareTo(b.Length);
        }

        // Halves of pairs stand for what is above all other units.
        return (char.IsSurrogate(a[at]), char.IsSurrogate(b[at])) switch
        {
            (true, false) => 1,
            (false, true) => -1,
            _ => a[at].CompareTo(b[at]),
        };
    }

    /// <summary>Takes white space, or characters of a set, from the ends.</summary>
    public static string Strip(string text, string? characters, bool left, bool right)
    {
        HashSet<Rune>? set = characters is null ? null : [.. characters.EnumerateRunes()];
        int start = 0;
        while (left && start < text.Length && Rune.TryGetRuneAt(text, start, out Rune rune) && IsStripped(rune))
        {
            start += rune.Utf16SequenceLength;
        }

        int end = text.Length;
        while (right && end > start && Rune.DecodeLastFromUtf16(text.AsSpan(start, end - start), out Rune rune, out int length) == System.Buffers.OperationStatus.Done && IsStripped(rune))
        {
            end -= length;
        }

        return text[start..end];

        bool IsStripped(Rune rune) => set is null ? rune.IsBmp && IsSpace((char)rune.Value) : set.Contains(rune);
    }

    /// <summary>Splits at white space, from the left or the right, so many times at most.</summary>
    public static TemplateList Split(string text, long most, bool fromRight = false)
    {
        List<object?> parts = [];
        int start = 0;
        int end = text.Length;
        while (true)
        {
            string rest = Strip(text[start..end], null, left: true, right: true);
            if (rest.Length == 0)
            {
                break;
            }

            // The last part keeps the white space on its other side.
            bool isLast = most >= 0 && parts.Count == most;
            if (fromRight)
            {
                end = start + Strip(text[start..end], null, left: false, right: true).Length;
                int at = end;
                while (!isLast && at > start && !IsSpace(text[at - 1]))
                {
                    at--;
                }

                parts.Insert(0, isLast ? text[start..end] : text[at..end]);
                end = at;
            }
            else
            {
                start = end - Strip(text[start..end], null, left: true, right: false).Length;
                int at = start;
                while (!isLast && at < end && !IsSpace(text[at]))
                {
                    at++;
                }

                parts.Add(isLast ? text[start..end] : text[start..at]);
                start = at;
            }

            if (isLast)
            {
                break;
            }
        }

        return new(parts);
    }

    /// <summary>Splits at a separator, from the left or the right, so many times at most.</summary>
    public static TemplateList Split(string text, string separator, long most, bool fromRight = false)
    {
        if (most < 0 || !fromRight)
        {
            return new(text.Split(separator, most < 0 ? int.MaxValue : (int)Math.Min(most + 1, int.MaxValue), StringSplitOptions.None));
        }

        List<object?> parts = [];
        int end = text.Length;
        while (parts.Count < most && text.AsSpan(0, end).LastIndexOf(separator) is int at and >= 0)
        {
            parts.Insert(0, text[(at + separator.Length)..end]);
            end = at;
        }

        parts.Insert(0, text[..end]);
        return new(parts);
    }

    /// <summary>Lines as <c>splitlines</c> gives them.</summary>
    public static TemplateList Lines(string text, bool withEnds)
    {
        TemplateList lines = [];
        int start = 0;
        while (start < text.Length)
        {
            int end = start;
            while (end < text.Length && text[end] is not ((>= '\n' and <= '\r') or (>= '\u001C' and <= '\u001E') or '\u0085' or '\u2028' or '\u2029'))
            {
                end++;
            }

            int next = end == text.Length ? end : text[end] == '\r' && end + 1 < text.Length && text[end + 1] == '\n' ? end + 2 : end + 1;
            lines.Add(text[start..(withEnds ? next : end)]);
            start = next;
        }

        return lines;
    }

    /// <summary>The text in capital letters.</summary>
    public static string Upper(int line, string text) => Map(text, rune => Upper(line, rune));

    /// <summary>The text in small letters.</summary>
    public static string Lower(string text)
    {
        StringBuilder lower = new(text.Length);
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            _ = rune.Value switch
            {
                0x130 => lower.Append("i\u0307"),
                0x3A3 => lower.Append(EndsWord(text, at) ? '\u03C2' : '\u03C3'),
                _ => lower.Append(Rune.ToLowerInvariant(rune).ToString()),
            };
            at += rune.Utf16SequenceLength;
        }

        return lower.ToString();
    }

    /// <summary>The first character in its title case, the others in small letters.</summary>
    public static string Capitalize(int line, string text) => text.Length == 0 ? "" : Title(line, Rune.GetRuneAt(text, 0)) + Lower(text)[Lower(Rune.GetRuneAt(text, 0).ToString()).Length..];

    /// <summary>Every first letter of a run of letters in its title case, the others in small letters.</summary>
    public static string Titled(int line, string text)
    {
        string lower = Lower(text);
        StringBuilder titled = new(text.Length);
        bool isInside = false;
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            int length = Lower(rune.ToString()).Length;
            titled.Append(isInside ? lower.Substring(at, length) : Title(line, rune));
            at += length;
            isInside = IsCased(rune);
        }

        return titled.ToString();
    }

    /// <summary>Capital letters small and small ones capital.</summary>
    public static string SwapCase(int line, string text)
    {
        string lower = Lower(text);
        StringBuilder swapped = new(text.Length);
        int at = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            int length = Lower(rune.ToString()).Length;
            swapped.Append(IsUpper(rune) ? lower.Substring(at, length) : IsLower(rune) ? Upper(line, rune) : rune.ToString());
            at += length;
        }

        return swapped.ToString();
    }

    /// <summary>Whether there are letters with cases, and all of them are capital.</summary>
    public static bool IsUpper(string text) => text.EnumerateRunes().Any(IsUpper) && !text.EnumerateRunes().Any(static rune => IsLower(rune) || IsTitle(rune));

    /// <summary>Whether there are letters with cases, and all of them are small.</summary>
    public static bool IsLower(string text) => text.EnumerateRunes().Any(IsLower) && !text.EnumerateRunes().Any(static rune => IsUpper(rune) || IsTitle(rune));

    /// <summary>Whether every run of letters begins with a capital, and there is one.</summary>
    public static bool IsTitled(string text)
    {
        bool isInside = false;
        bool any = false;
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (IsInitial(rune) ? isInside : IsLower(rune) && !isInside)
            {
                return false;
            }

            isInside = IsCased(rune);
            any |= isInside;
        }

        return any;

        static bool IsInitial(Rune rune) => IsUpper(rune) || IsTitle(rune);
    }

    /// <summary>Whether there are characters, and all of them fit.</summary>
    public static bool All(string text, Func<Rune, bool> fits) => text.Length > 0 && text.EnumerateRunes().All(fits);

    /// <summary>Text between quotes, as <c>repr</c> writes it.</summary>
    public static string Represent(string text)
    {
        char quote = text.Contains('\'', StringComparison.Ordinal) && !text.Contains('"', StringComparison.Ordinal) ? '"' : '\'';
        StringBuilder quoted = new();
        quoted.Append(quote);
        foreach (Rune rune in text.EnumerateRunes())
        {
            _ = rune.Value switch
            {
                '\n' => quoted.Append("\\n"),
                '\r' => quoted.Append("\\r"),
                '\t' => quoted.Append("\\t"),
                '\\' => quoted.Append("\\\\"),
                int c when c == quote => quoted.Append('\\').Append(quote),
                int c when !IsPrintable(rune) => quoted.Append(Escape(c)),
                _ => quoted.Append(rune.ToString()),
            };
        }

        return quoted.Append(quote).ToString();
    }

    /// <summary>A code point as it is escaped.</summary>
    public static string Escape(int code) => code < 0x100 ? "\\x" + code.ToString("x2", CultureInfo.InvariantCulture)
        : code < 0x10000 ? "\\u" + code.ToString("x4", CultureInfo.InvariantCulture)
        : "\\U" + code.ToString("x8", CultureInfo.InvariantCulture);

    private static bool IsBasic(string text) => !text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF');

    private static string Map(string text, Func<Rune, string> map)
    {
        StringBuilder mapped = new(text.Length);
        foreach (Rune rune in text.EnumerateRunes())
        {
            mapped.Append(map(rune));
        }

        return mapped.ToString();
    }

    private static string Upper(int line, Rune rune) => s_longUpper.GetValueOrDefault(rune.Value) ?? (rune.Value switch
    {
        0x131 => "I",
        0x17F => "S",
        >= 0x1F50 and <= 0x1FFC when HasLongUpper(rune.Value) => throw TemplateError.Unsupported(line, $"the capital of '{rune}'"),
        _ => Rune.ToUpperInvariant(rune).ToString(),
    });

    // Greek letters with marks whose capitals are several characters.
    private static bool HasLongUpper(int code) => code is 0x1F50 or 0x1F52 or 0x1F54 or 0x1F56 or (>= 0x1F80 and <= 0x1FAF) or (>= 0x1FB2 and <= 0x1FB4) or 0x1FB6 or 0x1FB7 or 0x1FBC
        or (>= 0x1FC2 and <= 0x1FC4) or 0x1FC6 or 0x1FC7 or 0x1FCC or 0x1FD2 or 0x1FD3 or 0x1FD6 or 0x1FD7 or (>= 0x1FE2 and <= 0x1FE4) or 0x1FE6 or 0x1FE7
        or (>= 0x1FF2 and <= 0x1FF4) or 0x1FF6 or 0x1FF7 or 0x1FFC;

    private static string Title(int line, Rune rune) => rune.Value switch
    {
        >= 0x1C4 and <= 0x1CC => ((char)(0x1C5 + ((rune.Value - 0x1C4) / 3 * 3))).ToString(),
        >= 0x1F1 and <= 0x1F3 => "\u01F2",
        >= 0x10D0 and <= 0x10FF => rune.ToString(),
        _ when s_longUpper.TryGetValue(rune.Value, out string? upper) && char.IsLetter(upper[^1]) && char.IsLetter(upper[0]) && upper[0] != '\u02BC' => upper[0] + Lower(upper[1..]),
        _ => Upper(line, rune),
    };

    private static bool IsCased(Rune rune) => IsUpper(rune) || IsLower(rune) || IsTitle(rune);

    private static bool IsTitle(Rune rune) => Rune.GetUnicodeCategory(rune) is UnicodeCategory.TitlecaseLetter;

    // Other_Uppercase and Other_Lowercase are letters by form: Roman numbers, letters in circles, letters set high or low.
    private static bool IsUpper(Rune rune) => Rune.GetUnicodeCategory(rune) is UnicodeCategory.UppercaseLetter
        || rune.Value is (>= 0x2160 and <= 0x216F) or (>= 0x24B6 and <= 0x24CF) or (>= 0x1F130 and <= 0x1F149) or (>= 0x1F150 and <= 0x1F169) or (>= 0x1F170 and <= 0x1F189);

    private static bool IsLower(Rune rune) => Rune.GetUnicodeCategory(rune) is UnicodeCategory.LowercaseLetter
        || rune.Value is 0xAA or 0xBA or (>= 0x2B0 and <= 0x2B8) or 0x2C0 or 0x2C1 or (>= 0x2E0 and <= 0x2E4) or 0x345 or 0x37A or (>= 0x1D2C and <= 0x1D6A) or 0x1D78
            or (>= 0x1D9B and <= 0x1DBF) or 0x2071 or 0x207F or (>= 0x2090 and <= 0x209C) or (>= 0x2170 and <= 0x217F) or (>= 0x24D0 and <= 0x24E9) or 0x2C7C or 0x2C7D
            or 0xA69C or 0xA69D or 0xA770 or 0xA7F8 or 0xA7F9 or (>= 0xAB5C and <= 0xAB5F);

    // A sigma behind a letter and before none is written as the end of a word; marks and points between do not count.
    private static bool EndsWord(string text, int at)
    {
        bool follows = text[..at].EnumerateRunes().Reverse().SkipWhile(IsIgnored).Take(1).Any(IsCased);
        return follows && !text[(at + 1)..].EnumerateRunes().SkipWhile(IsIgnored).Take(1).Any(IsCased);

        static bool IsIgnored(Rune rune) => rune.Value is '\'' or '.' or ':' or '^' or '`' or 0xA8 or 0xAD or 0xAF or 0xB4 or 0xB7 or 0xB8 or 0x2018 or 0x2019 or 0x2024 or 0x2027
            || Rune.GetUnicodeCategory(rune) is UnicodeCategory.NonSpacingMark or UnicodeCategory.EnclosingMark or UnicodeCategory.Format or UnicodeCategory.ModifierLetter
                or UnicodeCategory.ModifierSymbol;
    }

    private static bool IsPrintable(Rune rune) => rune.Value == ' ' || Rune.GetUnicodeCategory(rune) is not (UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate
        or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator or UnicodeCategory.SpaceSeparator);
}
