using System.Globalization;
using System.Text;
using LoKr.Core.Errors;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization;

/// <summary>
/// The normalizer stage: changes the text before it is split. The normalizers of Microsoft.ML.Tokenizers lower-case by culture, work on UTF-16
/// units or trim, and say nothing of where the result comes from, so they do not do what a tokenizer.json asks for.
/// </summary>
internal abstract class Normalizer
{
    public abstract MappedText Normalize(MappedText text);

    public string Normalize(string text) => Normalize(new MappedText(text)).Text;
}

/// <summary>
/// BERT's normalization: clean-up, spaces around Chinese characters, removal of accents, lower case; in that order, each optional.
/// Microsoft.ML.Tokenizers' BertTokenizer lower-cases first and keeps control characters, so its ids differ.
/// </summary>
internal sealed class BertTextNormalizer : Normalizer
{
    private readonly bool _cleanText;
    private readonly bool _handleChinese;
    private readonly bool _lowercase;
    private readonly FormNormalizer? _decompose;

    public BertTextNormalizer(bool cleanText, bool handleChinese, bool? stripAccents, bool lowercase)
    {
        _cleanText = cleanText;
        _handleChinese = handleChinese;
        _lowercase = lowercase;
        _decompose = stripAccents ?? lowercase ? new FormNormalizer(NormalizationForm.FormD) : null;
    }

    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text)
    {
        text = _cleanText || _handleChinese ? CleanAndSpace(text) : text;
        if (_decompose is not null && !Ascii.IsValid(text.Text))
        {
            text = FilterNormalizer.Remove(_decompose.Normalize(text), CharacterClass.IsNonspacingMark);
        }

        return _lowercase ? LowercaseNormalizer.Lower(text) : text;
    }

    private MappedText CleanAndSpace(MappedText text)
    {
        if (!text.Text.AsSpan().ContainsAnyExceptInRange(' ', '~'))
        {
            return text;
        }

        TextRewriter result = new(text);
        int at = 0;
        foreach (Rune rune in text.Text.EnumerateRunes())
        {
            int start = at;
            at += rune.Utf16SequenceLength;
            if (_cleanText && rune.Value is '\t' or '\n' or '\r')
            {
                result.Write(" ", start);
            }
            else if (_cleanText && (rune.Value is 0 or 0xFFFD || CharacterClass.IsOther(rune)))
            {
                continue;
            }
            else if (_cleanText && Rune.IsWhiteSpace(rune))
            {
                result.Write(" ", start);
            }
            else if (_handleChinese && CharacterClass.IsChinese(rune))
            {
                result.Write(" ", start);
                result.Write(rune, start);
                result.Write(" ", start);
            }
            else
            {
                result.Copy(start, at - start);
            }
        }

        return result.ToText();
    }
}

/// <summary>Removes code points.</summary>
internal sealed class FilterNormalizer(Func<Rune, bool> isRemoved) : Normalizer
{
    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text) => Remove(text, isRemoved);

    public static MappedText Remove(MappedText text, Func<Rune, bool> isRemoved)
    {
        TextRewriter result = new(text);
        int at = 0;
        foreach (Rune rune in text.Text.EnumerateRunes())
        {
            if (!isRemoved(rune))
            {
                result.Copy(at, rune.Utf16SequenceLength);
            }

            at += rune.Utf16SequenceLength;
        }

        return result.ToText();
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

    /// <summary>Whether the form puts code points together, and the form that only takes them apart.</summary>
    private (bool Composes, NormalizationForm Apart) Parts => _form switch
    {
        NormalizationForm.FormC => (true, NormalizationForm.FormD),
        NormalizationForm.FormKC => (true, NormalizationForm.FormKD),
        _ => (false, _form),
    };

    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text)
    {
        if (Ascii.IsValid(text.Text))
        {
            return text;
        }

        return ReferenceUnicode.NotNormalized.ContainsAnyOf(text.Text) ? BetweenUnknown(text) : Whole(text);
    }

    private MappedText Whole(MappedText text)
    {
        string whole = text.Text.Normalize(_form);
        return text.Source is null ? new MappedText(whole) : whole == text.Text ? text : Traced(text, whole);
    }

    /// <summary>Normalizes what is between the code points that stay as they are.</summary>
    private MappedText BetweenUnknown(MappedText text)
    {
        TextRewriter result = new(text);
        int done = 0;
        int at = 0;
        foreach (Rune rune in text.Text.EnumerateRunes())
        {
            int end = at + rune.Utf16SequenceLength;
            if (ReferenceUnicode.NotNormalized.Contains(rune))
            {
                result.Write(Whole(text.Slice(done, at - done)));
                result.Copy(at, end - at);
                done = end;
            }

            at = end;
        }

        result.Write(Whole(text.Slice(done, at - done)));
        return result.ToText();
    }

    /// <summary>In invariant globalization mode .NET returns every text unchanged, which would give wrong tokens silently.</summary>
    private static void EnsureAvailable()
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

    /// <summary>
    /// The result with its map. Every code point of the result is taken apart; its first part comes from the code point of the old text that
    /// has the part at the same place when it is taken apart.
    /// </summary>
    private MappedText Traced(MappedText text, string whole)
    {
        (bool composes, NormalizationForm apart) = Parts;
        List<int> origins = new(whole.Length + 8);
        int at = 0;
        foreach (Rune rune in text.Text.EnumerateRunes())
        {
            for (int part = PartCount(rune, apart); part > 0; part--)
            {
                origins.Add(at);
            }

            at += rune.Utf16SequenceLength;
        }

        TextRewriter result = new(text);
        int next = 0;
        foreach (Rune rune in whole.EnumerateRunes())
        {
            result.Write(rune, origins[Math.Min(next, origins.Count - 1)]);
            next += composes ? PartCount(rune, apart) : 1;
        }

        return result.ToText();
    }

    private static int PartCount(Rune rune, NormalizationForm apart)
    {
        if (rune.IsAscii)
        {
            return 1;
        }

        int count = 0;
        foreach (Rune _ in rune.ToString().Normalize(apart).EnumerateRunes())
        {
            count++;
        }

        return count;
    }
}

/// <summary>
/// Lower-cases every code point on its own with Unicode's full mapping: no culture, no final sigma.
/// The only lower-case mapping to more than one code point is that of U+0130.
/// </summary>
internal sealed class LowercaseNormalizer : Normalizer
{
    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text) => Lower(text);

    public static MappedText Lower(MappedText text)
    {
        if (Ascii.IsValid(text.Text))
        {
            return text with { Text = text.Text.ToLowerInvariant() };
        }

        TextRewriter result = new(text);
        int at = 0;
        foreach (Rune rune in text.Text.EnumerateRunes())
        {
            if (rune.Value == 0x130)
            {
                result.Write("i\u0307", at);
            }
            else
            {
                result.Write(ReferenceUnicode.ToLower(rune), at);
            }

            at += rune.Utf16SequenceLength;
        }

        return result.ToText();
    }
}

/// <summary>Prepends a prefix to every text that is not empty.</summary>
internal sealed class PrependNormalizer(string prefix) : Normalizer
{
    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text) => Prepend(text, prefix);

    /// <summary>Prepends a text; it comes from the first code point.</summary>
    public static MappedText Prepend(MappedText text, string prefix)
    {
        if (text.Text.Length == 0)
        {
            return text;
        }

        if (text.Source is null)
        {
            return new MappedText(prefix + text.Text);
        }

        TextRewriter result = new(text);
        result.Write(prefix, 0);
        result.Copy(0, text.Text.Length);
        return result.ToText();
    }
}

/// <summary>Replaces every match of a pattern with a fixed text.</summary>
internal sealed class ReplaceNormalizer(ITextPattern pattern, string content) : Normalizer
{
    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text) => Replace(text, pattern, content);

    public static MappedText Replace(MappedText text, ITextPattern pattern, string content)
    {
        List<(int Start, int Length)> matches = pattern.Find(text.Text);
        if (matches.Count == 0)
        {
            return text;
        }

        TextRewriter result = new(text);
        int done = 0;
        foreach ((int start, int length) in matches)
        {
            result.Copy(done, start - done);
            done = start + length;
            result.Write(content, Math.Max(0, done - 1));
        }

        result.Copy(done, text.Text.Length - done);
        return result.ToText();
    }
}

/// <summary>Applies normalizers one after another.</summary>
internal sealed class SequenceNormalizer(IReadOnlyList<Normalizer> normalizers) : Normalizer
{
    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text)
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
    public override MappedText Normalize(MappedText text)
    {
        ReadOnlySpan<char> trimmed = text.Text;
        trimmed = left ? trimmed.TrimStart() : trimmed;
        int start = text.Text.Length - trimmed.Length;
        trimmed = right ? trimmed.TrimEnd() : trimmed;
        return text.Slice(start, trimmed.Length);
    }
}

/// <summary>
/// The character map of a SentencePiece model, as the Precompiled normalizer of a tokenizer.json applies it: one extended grapheme cluster
/// after another. A short cluster is looked up whole, and where any beginning of it is a key, the value of the shortest one replaces all of it;
/// otherwise its code points are looked up one by one. SentencePiece itself looks for the longest key at every place, see
/// <see cref="SentencePieceNormalizer"/>.
/// </summary>
internal sealed class PrecompiledNormalizer(CharacterMap map) : Normalizer
{
    // Clusters of more UTF-8 bytes are not looked up whole.
    private const int LongestCluster = 5;

    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text)
    {
        if (map.LeavesAlone(text.Text))
        {
            return text;
        }

        TextRewriter result = new(text);
        ReadOnlySpan<char> rest = text.Text;
        int at = 0;
        Span<byte> utf8 = stackalloc byte[LongestCluster];
        while (at < rest.Length)
        {
            int length = ClusterLength(rest[at..]);
            ReadOnlySpan<char> cluster = rest.Slice(at, length);
            if (Encoding.UTF8.TryGetBytes(cluster, utf8, out int bytes) && map.TryShortest(utf8[..bytes], out string? value))
            {
                WriteValue(result, value, at, length);
            }
            else
            {
                int start = at;
                foreach (Rune rune in cluster.EnumerateRunes())
                {
                    if (map.TryShortest(utf8[..rune.EncodeToUtf8(utf8)], out string? own))
                    {
                        WriteValue(result, own, start, rune.Utf16SequenceLength);
                    }
                    else
                    {
                        result.Copy(start, rune.Utf16SequenceLength);
                    }

                    start += rune.Utf16SequenceLength;
                }
            }

            at += length;
        }

        return result.ToText();
    }

    // A cluster of two ASCII characters is a line break only, so most text needs no table.
    private static int ClusterLength(ReadOnlySpan<char> rest) =>
        rest.Length > 1 && rest[0] < 0x80 && rest[1] < 0x80 && rest[0] != '\r' ? 1 : StringInfo.GetNextTextElementLength(rest);

    // Code point by code point, as far as the old ones reach.
    private static void WriteValue(TextRewriter result, string value, int start, int length)
    {
        int unit = start;
        foreach (Rune rune in value.EnumerateRunes())
        {
            result.Write(rune, unit);
            Rune.DecodeFromUtf16(result.Text.AsSpan(unit), out _, out int step);
            unit = unit + step < start + length ? unit + step : unit;
        }
    }
}

/// <summary>
/// SentencePiece's own normalization, spaces escaped: the longest key of the character map at every place, white space at the ends and in
/// runs removed, and its visible space in front.
/// </summary>
/// <param name="map">The model's map, or null.</param>
/// <param name="unchanged">Pieces that the user defined, which are taken as they are.</param>
/// <param name="addsPrefix">Whether a space goes in front of the text.</param>
/// <param name="removesExtraSpaces">Whether white space at the ends and in runs is removed.</param>
internal sealed class SentencePieceNormalizer(
    CharacterMap? map, IEnumerable<string> unchanged, bool addsPrefix, bool removesExtraSpaces) : Normalizer
{
    private const char Space = '\u2581';

    private readonly string[] _unchanged = [.. unchanged.OrderByDescending(piece => piece.Length)];

    /// <inheritdoc/>
    public override MappedText Normalize(MappedText text)
    {
        TextRewriter result = new(text);
        byte[] utf8 = Encoding.UTF8.GetBytes(text.Text);
        int at = 0;
        int atByte = 0;
        bool started = false;
        bool afterSpace = removesExtraSpaces;
        while (at < text.Text.Length)
        {
            (string value, int units, int bytes) = Next(text.Text, at, utf8, atByte);
            int skipped = 0;
            while (afterSpace && skipped < value.Length && value[skipped] == ' ')
            {
                skipped++;
            }

            if (!started && (!removesExtraSpaces || value != " "))
            {
                // Spaces at the start are gone; the prefix comes from the first code point that stays.
                started = true;
                if (addsPrefix)
                {
                    result.Write([Space], at);
                }
            }

            if (skipped < value.Length)
            {
                result.Write(value[skipped..].Replace(' ', Space), at);
                afterSpace = value.EndsWith(' ');
            }

            afterSpace &= removesExtraSpaces;
            at += units;
            atByte += bytes;
        }

        MappedText normalized = result.ToText();
        return removesExtraSpaces ? normalized.Slice(0, normalized.Text.AsSpan().TrimEnd(Space).Length) : normalized;
    }

    private (string Value, int Units, int Bytes) Next(string text, int at, byte[] utf8, int atByte)
    {
        foreach (string piece in _unchanged)
        {
            if (text.AsSpan(at).StartsWith(piece, StringComparison.Ordinal))
            {
                return (piece, piece.Length, Encoding.UTF8.GetByteCount(piece));
            }
        }

        if (map is not null && map.TryLongest(utf8.AsSpan(atByte), out string? value, out int bytes))
        {
            return (value, Encoding.UTF8.GetCharCount(utf8, atByte, bytes), bytes);
        }

        Rune.DecodeFromUtf16(text.AsSpan(at), out Rune rune, out int units);
        return (text.Substring(at, units), units, rune.Utf8SequenceLength);
    }
}
