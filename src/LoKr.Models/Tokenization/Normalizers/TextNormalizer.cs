using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>
/// Base of our normalizers. The ones of Microsoft.ML.Tokenizers lower-case by culture, work on UTF-16 units or trim, so they do
/// not give what a tokenizer.json asks for.
/// </summary>
internal abstract class TextNormalizer : Normalizer
{
    /// <inheritdoc/>
    public override string Normalize(ReadOnlySpan<char> original) => Normalize(original.ToString());
}
