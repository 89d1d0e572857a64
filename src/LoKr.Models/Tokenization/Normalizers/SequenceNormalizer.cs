using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>Applies normalizers one after another.</summary>
internal sealed class SequenceNormalizer(IReadOnlyList<Normalizer> normalizers) : TextNormalizer
{
    /// <inheritdoc/>
    public override string Normalize(string original)
    {
        string text = original;
        foreach (Normalizer normalizer in normalizers)
        {
            text = normalizer.Normalize(text);
        }

        return text;
    }
}
