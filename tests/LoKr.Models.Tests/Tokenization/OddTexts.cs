namespace LoKr.Models.Tests.Tokenization;

/// <summary>Texts that tokenizers stumble over.</summary>
internal static class OddTexts
{
    public static IReadOnlyList<string> All { get; } =
    [
        "", " ", "   ", "\t\t", "\r\n", "\n\n\n", " \n x", "a\u00A0b", "\u3000x\u2003y", "\u200B\u200D\uFEFF", "\0\u0001\u007F\u0085",
        "e\u0301\u0323", "\u0958\u2126\u212B", "\uFB01\u017F\u1E9E\u0130\u01C5", "\u4F60\u597D, \u4E16\u754C", "\U00020000\U0002A6D6x", "\U0001D400\U0001D7D8\U00010400",
        "\U0001F469\u200D\U0001F469\u200D\U0001F467 \U0001F1E9\U0001F1EA", "\u0645\u0631\u062D\u0628\u0627 \u05E9\u05DC\u05D5\u05DD", "\u0E2A\u0E27\u0E31\u0E2A\u0E14\u0E35",
        "don't I'LL '\u017F \u2019s 'Re", "a.b,c;d!e?f", "<<>>[[]]{{}}##$$", "x\U0010FFFDy\uE000z", "\u24B6\u2460\u216B\u00B2\u00BD", new string('x', 101), new string('\u4E00', 150),
        string.Concat(Enumerable.Repeat("\U0001D400", 101)), string.Concat(Enumerable.Repeat("\U0001D400", 100)), "1234567890 12345", "  two  spaces  ", "end ", " 's", "''''ll",
        string.Concat(Enumerable.Repeat("lorem ipsum ", 300)), new string(' ', 700), new string('=', 700),
    ];
}
