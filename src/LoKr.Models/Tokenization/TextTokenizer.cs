using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.Nn;
using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization;

/// <summary>
/// A tokenizer made of the stages of Hugging Face's: added tokens, normalizer, pre-tokenizers, model, template; and decoder.
/// Immutable but for bounded caches, so it may be used from several threads.
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
    public IReadOnlyList<string> SourceFiles { get; }

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
        foreach (IPieceStep step in _parts.Steps)
        {
            List<Piece> result = new(pieces.Count + 16);
            foreach (Piece current in pieces)
            {
                step.Apply(current, result);
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

    /// <summary>The text with U+FFFD in place of surrogates without their partner, which no UTF-8 can hold.</summary>
    private static string WellFormed(string text)
    {
        if (text.AsSpan().IndexOfAnyInRange('\uD800', '\uDFFF') < 0)
        {
            return text;
        }

        return string.Concat(text.EnumerateRunes().Select(rune => rune.ToString()));
    }
}

/// <summary>What a reader of tokenizer files finds: the stages of the tokenizer, before ids are given to added tokens.</summary>
internal sealed class TokenizerParts
{
    /// <summary>The file that was read; errors name it.</summary>
    public required string File { get; init; }

    /// <summary>Turns a piece without added tokens into ids.</summary>
    public required ITokenModel Model { get; init; }

    public Normalizer? Normalizer { get; init; }

    public IReadOnlyList<IPieceStep> Steps { get; init; } = [];

    /// <summary>Null joins the tokens with spaces, as Hugging Face's tokenizers does without a decoder.</summary>
    public ITokenDecoder? Decoder { get; init; }

    /// <summary>Added tokens in the order of the file.</summary>
    public IReadOnlyList<AddedToken> AddedTokens { get; init; } = [];

    /// <summary>Ids around the text, from the post-processor; null where the file has none.</summary>
    public SpecialTokenTemplate? Template { get; init; }

    /// <summary>Special tokens around the text by name, for readers that know no ids yet.</summary>
    public (IReadOnlyList<string> Before, IReadOnlyList<string> After)? NamedTemplate { get; init; }

    /// <summary>Special tokens that the family has where the configuration names none, by key such as <c>cls_token</c>.</summary>
    public IReadOnlyDictionary<string, AddedToken> DefaultSpecialTokens { get; init; } = new Dictionary<string, AddedToken>();

    /// <summary>Whether <c>add_bos_token</c> counts as true where the configuration is silent (Llama's SentencePiece files).</summary>
    public bool AddsBosByDefault { get; init; }

    /// <summary>Whether the transformers clean-up of spaces may apply after decoding; it never does for BPE models.</summary>
    public bool AllowsCleanUp { get; init; }
}

/// <summary>Ids that go before and after a text: the template of one sequence.</summary>
internal sealed record SpecialTokenTemplate(IReadOnlyList<int> Before, IReadOnlyList<int> After)
{
    public static SpecialTokenTemplate Empty { get; } = new([], []);

    /// <summary>The template that results when <paramref name="outer"/> is applied to the result of this one.</summary>
    public SpecialTokenTemplate Inside(SpecialTokenTemplate outer) =>
        new([.. outer.Before, .. Before], [.. After, .. outer.After]);
}

/// <summary>Decides which special tokens go around a text, as transformers does.</summary>
internal static class TemplateResolver
{
    public static SpecialTokenTemplate Resolve(TokenizerParts parts, TokenizerConfig config, AddedTokenTable added)
    {
        // Where the configuration says whether to add bos and eos, that replaces the post-processor of the file.
        if (config.AddBos is not null || config.AddEos is not null || parts.AddsBosByDefault)
        {
            bool bos = config.AddBos ?? parts.AddsBosByDefault;
            bool eos = config.AddEos ?? false;
            return new SpecialTokenTemplate(
                bos && added.NamedId("bos_token") is int bosId ? [bosId] : [],
                eos && added.NamedId("eos_token") is int eosId ? [eosId] : []);
        }

        if (parts.NamedTemplate is not null)
        {
            (IReadOnlyList<string> before, IReadOnlyList<string> after) = parts.NamedTemplate.Value;
            return new SpecialTokenTemplate([.. before.Select(Id)], [.. after.Select(Id)]);
        }

        return parts.Template ?? SpecialTokenTemplate.Empty;

        int Id(string name) => added.NamedId(name)
            ?? throw TokenizerError.Invalid(parts.File, $"its template needs a {name}, which tokenizer_config.json sets to nothing");
    }
}
