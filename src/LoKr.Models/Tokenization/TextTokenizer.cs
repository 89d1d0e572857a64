using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.Nn;

namespace LoKr.Models.Tokenization;

/// <summary>
/// A tokenizer with the stages of Hugging Face's: added tokens, normalizer, pre-tokenizers, model and template to encode, and a decoder.
/// Immutable except for bounded caches, so it may be used from several threads.
/// </summary>
internal sealed class TextTokenizer : ITextTokenizer
{
    private readonly TokenizerParts _parts;
    private readonly TokenizerConfig _config;
    private readonly AddedTokenTable _added;
    private readonly AddedVocabulary _finder;
    private readonly SpecialTokenTemplate _template;

    public TextTokenizer(TokenizerParts parts, TokenizerConfig config, IReadOnlyList<string> sourceFiles)
    {
        _parts = parts;
        _config = config;
        SourceFiles = sourceFiles;
        _added = new AddedTokenTable(parts, config);
        _finder = new AddedVocabulary(_added.ToMatch(config.SplitSpecialTokens), parts.Normalizer);
        _template = TemplateResolver.Resolve(parts, config, _added);
        VocabularySize = _added.VocabularySize;
        MaxLength = config.ModelMaxLength;
        PadId = _added.NamedId("pad_token");
        BosId = _added.NamedId("bos_token");
        EosId = _added.NamedId("eos_token");

        // Byte-level tokenizers know every text; some name the end of a text as the unknown token.
        UnknownId = _added.NamedId("unk_token") is int unknown && unknown != EosId && unknown != BosId ? unknown : null;
    }

    /// <inheritdoc/>
    public int VocabularySize { get; }

    /// <inheritdoc/>
    public int? MaxLength { get; }

    /// <inheritdoc/>
    public int? PadId { get; }

    /// <inheritdoc/>
    public int? BosId { get; }

    /// <inheritdoc/>
    public int? EosId { get; }

    /// <inheritdoc/>
    public int? UnknownId { get; }

    /// <inheritdoc/>
    public IReadOnlyList<string> SourceFiles { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{VocabularySize} tokens";

    /// <inheritdoc/>
    public IReadOnlyList<int> Encode(string text, bool addSpecialTokens = true, int? maxLength = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        SpecialTokenTemplate template = addSpecialTokens ? _template : SpecialTokenTemplate.Empty;
        int around = template.Before.Count + template.After.Count;
        if (maxLength is int asked && asked < Math.Max(1, around))
        {
            throw new LoKrException(
                ErrorIds.InvalidArgument,
                LoKrErrorKind.InvalidArgument,
                string.Create(CultureInfo.InvariantCulture, $"The maximum length {asked} leaves no room: the tokenizer adds {around} special tokens to every text."),
                string.Create(CultureInfo.InvariantCulture, $"Ask for at least {around + 1}."))
            {
                Target = maxLength,
            };
        }

        List<int> ids = new(text.Length / 3 + around);
        ids.AddRange(template.Before);
        int limit = maxLength is int length ? length - template.After.Count : int.MaxValue;
        AddText(WellFormed(text), ids, limit);
        if (ids.Count > limit)
        {
            ids.RemoveRange(limit, ids.Count - limit);
        }

        ids.AddRange(template.After);
        return ids;
    }

    /// <inheritdoc/>
    public string Decode(IEnumerable<int> ids, bool skipSpecialTokens = true)
    {
        ArgumentNullException.ThrowIfNull(ids);
        List<string> tokens = [];
        foreach (int id in ids)
        {
            // As in the reference, ids without a token (padding rows of an embedding) have no text.
            if (_added.TryGetToken(id, out string? token) && !(skipSpecialTokens && _added.IsSpecial(token)))
            {
                tokens.Add(token);
            }
        }

        string text = _parts.Decoder is null ? string.Join(' ', tokens) : string.Concat(_parts.Decoder.Decode(tokens));
        return _parts.AllowsCleanUp && _config.CleanUpSpaces ? TokenMaps.CleanUp(text) : text;
    }

    private void AddText(string text, List<int> ids, int limit)
    {
        foreach (AddedVocabulary.Segment raw in _finder.SplitRaw(text))
        {
            if (ids.Count >= limit)
            {
                return;
            }

            if (raw.Id is int rawId)
            {
                ids.Add(rawId);
                continue;
            }

            string part = raw.Length == text.Length ? text : text.Substring(raw.Start, raw.Length);
            string normalized = _parts.Normalizer?.Normalize(part) ?? part;
            foreach (AddedVocabulary.Segment segment in _finder.SplitNormalized(normalized))
            {
                if (segment.Id is int id)
                {
                    ids.Add(id);
                    continue;
                }

                string rest = segment.Length == normalized.Length ? normalized : normalized.Substring(segment.Start, segment.Length);
                AddPieces(new Piece(rest, raw.Start == 0 && segment.Start == 0), ids, limit);
            }
        }
    }

    private void AddPieces(Piece piece, List<int> ids, int limit)
    {
        List<Piece> pieces = [piece];
        foreach (IPreTokenizer preTokenizer in _parts.PreTokenizers)
        {
            List<Piece> result = new(pieces.Count + 16);
            foreach (Piece current in pieces)
            {
                preTokenizer.Apply(current, result);
            }

            pieces = result;
        }

        foreach (Piece current in pieces)
        {
            if (ids.Count >= limit)
            {
                return;
            }

            _parts.Model.Encode(current.Text, ids);
        }
    }

    /// <summary>The text with U+FFFD in place of lone surrogates, which UTF-8 cannot encode.</summary>
    private static string WellFormed(string text)
    {
        if (text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            return text;
        }

        return string.Concat(text.EnumerateRunes().Select(rune => rune.ToString()));
    }
}
