using System.Text;

namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>Removes code points.</summary>
internal sealed class FilterNormalizer(Func<Rune, bool> isRemoved) : TextNormalizer
{
    /// <inheritdoc/>
    public override string Normalize(string original) => Remove(original, isRemoved);

    public static string Remove(string text, Func<Rune, bool> isRemoved)
    {
        StringBuilder builder = new(text.Length);
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (!isRemoved(rune))
            {
                builder.Append(rune);
            }
        }

        return builder.ToString();
    }
}
