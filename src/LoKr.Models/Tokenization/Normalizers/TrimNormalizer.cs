namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>Removes white space at the ends (Strip of tokenizer.json).</summary>
internal sealed class TrimNormalizer(bool left, bool right) : TextNormalizer
{
    /// <inheritdoc/>
    public override string Normalize(string original)
    {
        ReadOnlySpan<char> text = original;
        text = left ? text.TrimStart() : text;
        text = right ? text.TrimEnd() : text;
        return text.Length == original.Length ? original : text.ToString();
    }
}
