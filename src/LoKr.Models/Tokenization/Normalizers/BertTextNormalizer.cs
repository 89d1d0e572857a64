using System.Text;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>
/// BERT's normalization: clean-up, spaces around Chinese characters, accents off, lower case; in that order, each optional.
/// Microsoft.ML.Tokenizers' own one lower-cases first and keeps control characters, so its ids differ.
/// </summary>
internal sealed class BertTextNormalizer : TextNormalizer
{
    private readonly bool _cleanText;
    private readonly bool _handleChinese;
    private readonly bool _stripAccents;
    private readonly bool _lowercase;

    public BertTextNormalizer(bool cleanText, bool handleChinese, bool? stripAccents, bool lowercase)
    {
        _cleanText = cleanText;
        _handleChinese = handleChinese;
        _stripAccents = stripAccents ?? lowercase;
        _lowercase = lowercase;
        if (_stripAccents)
        {
            FormNormalizer.EnsureAvailable();
        }
    }

    /// <inheritdoc/>
    public override string Normalize(string original)
    {
        string text = _cleanText || _handleChinese ? CleanAndSpace(original) : original;
        if (_stripAccents && !Ascii.IsValid(text))
        {
            text = FilterNormalizer.Remove(text.Normalize(NormalizationForm.FormD), CharacterClass.IsNonspacingMark);
        }

        return _lowercase ? LowercaseNormalizer.Lower(text) : text;
    }

    private string CleanAndSpace(string text)
    {
        StringBuilder builder = new(text.Length + 8);
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (_cleanText && rune.Value is '\t' or '\n' or '\r')
            {
                builder.Append(' ');
            }
            else if (_cleanText && (rune.Value is 0 or 0xFFFD || CharacterClass.IsOther(rune)))
            {
                continue;
            }
            else if (_cleanText && Rune.IsWhiteSpace(rune))
            {
                builder.Append(' ');
            }
            else if (_handleChinese && CharacterClass.IsChinese(rune))
            {
                builder.Append(' ').Append(rune).Append(' ');
            }
            else
            {
                builder.Append(rune);
            }
        }

        return builder.ToString();
    }
}
