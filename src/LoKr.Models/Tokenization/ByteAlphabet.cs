using System.Collections.Frozen;
using System.Text;

namespace LoKr.Models.Tokenization;

/// <summary>GPT-2's alphabet of 256 visible characters for the 256 bytes.</summary>
internal static class ByteAlphabet
{
    private static readonly char[] s_characters = Characters();
    private static readonly FrozenDictionary<char, byte> s_bytes =
        s_characters.Select((character, value) => (character, value)).ToFrozenDictionary(pair => pair.character, pair => (byte)pair.value);

    /// <summary>The UTF-8 bytes of a text, each as its character.</summary>
    public static string Encode(string text)
    {
        if (text.Length <= 256)
        {
            Span<byte> buffer = stackalloc byte[768];
            return Map(buffer[..Encoding.UTF8.GetBytes(text, buffer)]);
        }

        return Map(Encoding.UTF8.GetBytes(text));
    }

    /// <summary>The bytes of a token: those of its characters, or its own UTF-8 if it has a character outside the alphabet.</summary>
    public static byte[] Decode(string token)
    {
        byte[] bytes = new byte[token.Length];
        for (int i = 0; i < token.Length; i++)
        {
            if (!s_bytes.TryGetValue(token[i], out bytes[i]))
            {
                return Encoding.UTF8.GetBytes(token);
            }
        }

        return bytes;
    }

    private static string Map(ReadOnlySpan<byte> bytes) => string.Create(bytes.Length, bytes, static (characters, source) =>
    {
        for (int i = 0; i < source.Length; i++)
        {
            characters[i] = s_characters[source[i]];
        }
    });

    private static char[] Characters()
    {
        char[] characters = new char[256];
        int next = 256;
        for (int value = 0; value < 256; value++)
        {
            // Visible characters of Latin-1 stand for themselves; the other bytes are mapped in order to the characters after Latin-1.
            bool visible = value is (>= '!' and <= '~') or (>= 0xA1 and <= 0xAC) or >= 0xAE;
            characters[value] = (char)(visible ? value : next++);
        }

        return characters;
    }
}
