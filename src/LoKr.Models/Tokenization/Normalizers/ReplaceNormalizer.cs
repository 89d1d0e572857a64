using System.Text;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>Replaces every match of a pattern by a fixed text.</summary>
internal sealed class ReplaceNormalizer(ITextPattern pattern, string content) : TextNormalizer
{
    /// <inheritdoc/>
    public override string Normalize(string original) => Replace(original, pattern, content);

    public static string Replace(string text, ITextPattern pattern, string content)
    {
        List<(int Start, int Length)> matches = pattern.Find(text);
        if (matches.Count == 0)
        {
            return text;
        }

        StringBuilder builder = new(text.Length);
        int done = 0;
        foreach ((int start, int length) in matches)
        {
            builder.Append(text, done, start - done).Append(content);
            done = start + length;
        }

        return builder.Append(text, done, text.Length - done).ToString();
    }
}
