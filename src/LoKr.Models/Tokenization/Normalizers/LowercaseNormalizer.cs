using System.Text;

namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>
/// Lower-cases every code point by itself with Unicode's full mapping: no culture, no final sigma.
/// The only lower-case mapping to more than one code point is that of U+0130.
/// </summary>
internal sealed class LowercaseNormalizer : TextNormalizer
{
    /// <inheritdoc/>
    public override string Normalize(string original) => Lower(original);

    public static string Lower(string text)
    {
        if (Ascii.IsValid(text))
        {
            return text.ToLowerInvariant();
        }

        StringBuilder builder = new(text.Length);
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (rune.Value == 0x130)
            {
                builder.Append("i\u0307");
            }
            else
            {
                builder.Append(Rune.ToLowerInvariant(rune));
            }
        }

        return builder.ToString();
    }
}
