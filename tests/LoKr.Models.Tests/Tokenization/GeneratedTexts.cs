using System.Text;

namespace LoKr.Models.Tests.Tokenization;

/// <summary>Random texts of all scripts, with what tokenizers stumble over. Text <c>i</c> of a seed is always the same.</summary>
internal static class GeneratedTexts
{
    // Blocks with the scripts of the world; code points that are not assigned are left out, because releases of Unicode differ in them.
    private static readonly (int First, int Last)[] s_blocks =
    [
        (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58A), (0x591, 0x5F4), (0x600, 0x6FF),
        (0x710, 0x74A), (0x780, 0x7B1), (0x900, 0x97F), (0x985, 0x9B9), (0xA05, 0xA39), (0xA85, 0xAB9), (0xB05, 0xB39), (0xB85, 0xBB9),
        (0xC05, 0xC39), (0xC85, 0xCB9), (0xD05, 0xD3A), (0xD85, 0xDC6), (0xE01, 0xE3A), (0xE81, 0xEB9), (0xF00, 0xF47), (0x1000, 0x109F), (0x10A0, 0x10FF),
        (0x1100, 0x11FF), (0x1200, 0x1248), (0x13A0, 0x13F5), (0x1401, 0x166C), (0x1680, 0x169C), (0x16A0, 0x16EA), (0x1780, 0x17DD), (0x1820, 0x1878),
        (0x1E00, 0x1EFF), (0x1F00, 0x1FFE), (0x2000, 0x206F), (0x2070, 0x209C), (0x20A0, 0x20BF), (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF),
        (0x2500, 0x27BF), (0x2C00, 0x2C5F), (0x2D00, 0x2D25), (0x3000, 0x303F), (0x3041, 0x3096), (0x3099, 0x30FF), (0x3105, 0x312F), (0x3131, 0x318E),
        (0x3200, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FA5), (0xA000, 0xA48C), (0xAC00, 0xD7A3), (0xE000, 0xE010), (0xF900, 0xFAD9), (0xFB00, 0xFB06),
        (0xFB13, 0xFB17), (0xFB1D, 0xFB4F), (0xFB50, 0xFBC1), (0xFE30, 0xFE52), (0xFF01, 0xFFBE), (0xFFFC, 0xFFFD), (0x10000, 0x1004D), (0x10400, 0x1044F),
        (0x1D400, 0x1D7FF), (0x1F130, 0x1F189), (0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF), (0x20000, 0x20100), (0x2F800, 0x2FA1D),
        (0x300, 0x36F), (0x860, 0x8FF), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0xA640, 0xA7FF), (0xA800, 0xABFF), (0x10000, 0x1FFFF), (0xE0000, 0xE01EF),
    ];

    private static readonly string[] s_fragments =
    [
        " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", " \n ", "\u00A0", "\u3000", "\u2028", "\u0085", "\u200B", "\u200D", "\uFEFF", "\u00AD", "\0", "\u0001", "\u007F",
        "don't", "I'LL", "we've", "'s", "'\u017F", "\u2019re", "it's", "HELLO", "HelloWorld", "camelCase", "snake_case", "x86_64", "v1.2.3", "10,000", "1234567890",
        "\u0663\u0664\u0665", "\u00B2\u00BD\u2167", "...", "--", "?!", "@#$%", "https://example.org/a?b=c&d=%20", "foo@bar.example", "C:\\temp\\x.txt", "{\"a\": [1, 2]}",
        "<s>", "</s>", "<pad>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "<bos>", "<eos>", "<|endoftext|>", "<|im_start|>", "<|begin_of_text|>",
        "<start_of_turn>", "|||IP_ADDRESS|||", "\u2581", "\u2581\u2581", " \u2581", "``", "''", "<0x41>", "##ing",
        "e\u0301", "A\u030A", "\u1EAD", "a\u0323\u0302", "\u0041\u0302\u0323", "\u0958", "\u1100\u1161\u11A8", "\uAC00\u11A8", "\u0E01\u0E33", "\u0D4D\u200D", "\uFB01\u0301", "\uFF21\u0301",
        "\u0130", "\u017F", "\u1E9E", "\u03A3\u03C3\u03C2", "\u01C5", "\u2126", "\u212B", "\u210C",
        "\U0001F469\u200D\U0001F469\u200D\U0001F467", "\U0001F1E9\U0001F1EA", "\U0001F44D\U0001F3FD", "1\uFE0F\u20E3", "\u2764\uFE0F", "\U0001F3F4\U000E0067\U000E0062\U000E007F", "\U0001F680\U0001F680",
        "\u4F60\u597D", "\u3053\u3093\u306B\u3061\u306F", "\uC548\uB155", "\u041F\u0440\u0438\u0432\u0435\u0442", "\u0645\u0631\u062D\u0628\u0627", "\u05E9\u05DC\u05D5\u05DD", "\u0928\u092E\u0938\u094D\u0924\u0947", "caf\u00E9", "na\u00EFve", "stra\u00DFe",
    ];

    private static readonly string[] s_words =
        "the disk on node seven reported a read error and array went into degraded state please reset my password backup finished in minutes files copied none failed payment of invoice was rejected"
            .Split(' ');

    /// <summary>Makes a text.</summary>
    public static string Make(int seed, int index)
    {
        Random random = new(unchecked((seed * 397) ^ (index * 7919)));
        StringBuilder text = new();
        for (int parts = random.Next(1, random.Next(10) == 0 ? 60 : 14); parts > 0; parts--)
        {
            Append(text, random);
        }

        return text.ToString();
    }

    private static void Append(StringBuilder text, Random random)
    {
        switch (random.Next(12))
        {
            case < 4:
                text.Append(s_words[random.Next(s_words.Length)]).Append(random.Next(5) == 0 ? "" : " ");
                break;
            case < 7:
                text.Append(s_fragments[random.Next(s_fragments.Length)]);
                break;
            case < 9:
                (int first, int last) = s_blocks[random.Next(s_blocks.Length)];
                for (int length = random.Next(1, 8); length > 0; length--)
                {
                    AppendRune(text, random.Next(first, last + 1));
                }

                break;
            case 9:
                text.Append(' ', random.Next(8) == 0 ? random.Next(200) : random.Next(8));
                break;
            case 10:
                AppendRune(text, random.Next(0x300, 0x345));
                break;
            default:
                // A surrogate without its other half, now and then.
                text.Append(random.Next(4) == 0 ? (char)random.Next(0xD800, 0xE000) : (char)random.Next('a', 'z' + 1));
                break;
        }
    }

    private static void AppendRune(StringBuilder text, int code)
    {
        Rune rune = new(code);
        if (Rune.GetUnicodeCategory(rune) != System.Globalization.UnicodeCategory.OtherNotAssigned)
        {
            text.Append(rune.ToString());
        }
    }
}
