using System.Text;
using LoKr.Core.Errors;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization;

/// <summary>
/// The normalizer stage: changes the text before it is split. The normalizers of Microsoft.ML.Tokenizers lower-case by culture, work on UTF-16
/// units or trim, so they do not do what a tokenizer.json asks for.
/// </summary>
internal abstract class Normalizer
{
    public abstract string Normalize(string text);
}

/// <summary>
/// BERT's normalization: clean-up, spaces around Chinese characters, removal of accents, lower case; in that order, each optional.
/// Microsoft.ML.Tokenizers' BertTokenizer lower-cases first and keeps control characters, so its ids differ.
/// </summary>
internal sealed class BertTextNormalizer : Normalizer
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
    public override string Normalize(string text)
    {
        text = _cleanText || _handleChinese ? CleanAndSpace(text) : text;
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

/// <summary>Removes code points.</summary>
internal sealed class FilterNormalizer(Func<Rune, bool> isRemoved) : Normalizer
{
    /// <inheritdoc/>
    public override string Normalize(string text) => Remove(text, isRemoved);

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

/// <summary>NFC, NFD, NFKC or NFKD.</summary>
internal sealed class FormNormalizer : Normalizer
{
    private readonly NormalizationForm _form;

    /// <exception cref="LoKrException">The process has no Unicode data: it runs in invariant globalization mode.</exception>
    public FormNormalizer(NormalizationForm form)
    {
        EnsureAvailable();
        _form = form;
    }

    /// <inheritdoc/>
    public override string Normalize(string text) => Ascii.IsValid(text) ? text : text.Normalize(_form);

    /// <summary>In invariant globalization mode .NET returns every text unchanged, which would give wrong tokens silently.</summary>
    public static void EnsureAvailable()
    {
        if ("e\u0301".Normalize(NormalizationForm.FormC) != "\u00E9")
        {
            throw new LoKrException(
                ErrorIds.TokenizerUnsupported,
                LoKrErrorKind.Unavailable,
                "The tokenizer normalizes Unicode, but this process runs without Unicode data (invariant globalization mode).",
                "Install ICU (libicu) and start again without DOTNET_SYSTEM_GLOBALIZATION_INVARIANT.");
        }
    }
}

/// <summary>
/// Lower-cases every code point on its own with Unicode's full mapping: no culture, no final sigma.
/// The only lower-case mapping to more than one code point is that of U+0130.
/// </summary>
internal sealed class LowercaseNormalizer : Normalizer
{
    /// <inheritdoc/>
    public override string Normalize(string text) => Lower(text);

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

/// <summary>Prepends a prefix to every text that is not empty.</summary>
internal sealed class PrependNormalizer(string prefix) : Normalizer
{
    /// <inheritdoc/>
    public override string Normalize(string text) => text.Length == 0 ? text : prefix + text;
}

/// <summary>Replaces every match of a pattern with a fixed text.</summary>
internal sealed class ReplaceNormalizer(ITextPattern pattern, string content) : Normalizer
{
    /// <inheritdoc/>
    public override string Normalize(string text) => Replace(text, pattern, content);

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

/// <summary>Applies normalizers one after another.</summary>
internal sealed class SequenceNormalizer(IReadOnlyList<Normalizer> normalizers) : Normalizer
{
    /// <inheritdoc/>
    public override string Normalize(string text)
    {
        foreach (Normalizer normalizer in normalizers)
        {
            text = normalizer.Normalize(text);
        }

        return text;
    }
}

/// <summary>Trims white space (Strip of tokenizer.json).</summary>
internal sealed class TrimNormalizer(bool left, bool right) : Normalizer
{
    /// <inheritdoc/>
    public override string Normalize(string text)
    {
        ReadOnlySpan<char> trimmed = text;
        trimmed = left ? trimmed.TrimStart() : trimmed;
        trimmed = right ? trimmed.TrimEnd() : trimmed;
        return trimmed.Length == text.Length ? text : trimmed.ToString();
    }
}
