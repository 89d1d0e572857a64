using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization;

/// <summary>The stages of a tokenizer as a reader of its files returns them, before added tokens have ids.</summary>
internal sealed class TokenizerParts
{
    /// <summary>The file that was read, for errors.</summary>
    public required string File { get; init; }

    public Normalizer? Normalizer { get; init; }

    public IReadOnlyList<IPreTokenizer> PreTokenizers { get; init; } = [];

    public required ITokenModel Model { get; init; }

    /// <summary>Null joins the tokens with spaces, as Hugging Face's tokenizers does without a decoder.</summary>
    public ITokenDecoder? Decoder { get; init; }

    /// <summary>Added tokens in the order of the file.</summary>
    public IReadOnlyList<AddedToken> AddedTokens { get; init; } = [];

    /// <summary>Ids around the text, from the post-processor; null where the file has none.</summary>
    public SpecialTokenTemplate? Template { get; init; }

    /// <summary>
    /// Whether the place of a token leaves out the spaces at its ends; where a space is added in front of the text, that one does not count.
    /// Null where places stay as they are.
    /// </summary>
    public SpaceTrimming? Trimming { get; init; }

    /// <summary>Special tokens around the text by key, for readers that do not know ids yet.</summary>
    public NamedTemplate? NamedTemplate { get; init; }

    /// <summary>Special tokens of the family where the configuration names none, by key such as <c>cls_token</c>.</summary>
    public IReadOnlyDictionary<string, AddedToken> DefaultSpecialTokens { get; init; } = new Dictionary<string, AddedToken>();

    /// <summary>Default of <c>add_bos_token</c>; true for Llama's SentencePiece files.</summary>
    public bool AddsBosByDefault { get; init; }

    /// <summary>Whether the transformers clean-up of spaces may apply after decoding; it never does for BPE models.</summary>
    public bool AllowsCleanUp { get; init; }
}

/// <summary>Special tokens around a text and around a pair of texts, by key such as <c>cls_token</c>.</summary>
/// <param name="Before">Those in front of the text.</param>
/// <param name="After">Those behind it, and behind the second text of a pair.</param>
/// <param name="Between">Those between the texts of a pair.</param>
/// <param name="SecondType">The <c>token_type_ids</c> value of the second text and of what follows it.</param>
internal sealed record NamedTemplate(
    IReadOnlyList<string> Before, IReadOnlyList<string> After, IReadOnlyList<string> Between, int SecondType)
{
    public static NamedTemplate None { get; } = new([], [], [], 1);
}

/// <summary>How the places of byte-level tokens leave out spaces (<c>trim_offsets</c>).</summary>
/// <param name="AddsPrefixSpace">Whether a space was added in front of the text, which is not a part of it.</param>
internal sealed record SpaceTrimming(bool AddsPrefixSpace)
{
    private const char ByteOfSpace = '\u0120';

    /// <summary>The place of a token without the spaces at its ends.</summary>
    public (int Start, int End) Trim(string token, int start, int end, bool isFirst)
    {
        int leading = 0;
        while (leading < token.Length && IsSpace(token[leading]))
        {
            leading++;
        }

        int trailing = 0;
        while (trailing < token.Length && IsSpace(token[^(trailing + 1)]))
        {
            trailing++;
        }

        // The space that was added in front is not in the text; of more than one the others are.
        leading -= leading > 0 && AddsPrefixSpace && (isFirst || start == 0) ? 1 : 0;
        start = Math.Min(start + leading, end);
        return (start, trailing > 0 && end >= trailing ? Math.Max(end - trailing, start) : end);
    }

    private static bool IsSpace(char character) => character == ByteOfSpace || char.IsWhiteSpace(character);
}

/// <summary>A part of a template: a special token, or one of the texts.</summary>
/// <param name="Id">The special token; null for a text.</param>
/// <param name="Text">0 for the text, 1 for the second one of a pair.</param>
/// <param name="TypeId">Its <c>token_type_ids</c> value.</param>
internal readonly record struct TemplatePart(int? Id, int Text, int TypeId)
{
    public static TemplatePart Special(int id, int typeId = 0) => new(id, -1, typeId);

    public static TemplatePart Of(int text, int typeId = 0) => new(null, text, typeId);
}

/// <summary>The special tokens around a text, and around a pair of texts.</summary>
internal sealed class SpecialTokenTemplate
{
    /// <param name="single">The parts around one text, which it holds once.</param>
    /// <param name="pair">The parts around two texts, each of which it holds once; null where the file has no such template.</param>
    public SpecialTokenTemplate(IReadOnlyList<TemplatePart> single, IReadOnlyList<TemplatePart>? pair)
    {
        Single = single;
        Pair = pair;
        int text = single.TakeWhile(part => part.Id is not null).Count();
        Before = [.. single.Take(text).Select(part => part.Id!.Value)];
        After = [.. single.Skip(text + 1).Select(part => part.Id!.Value)];
    }

    public static SpecialTokenTemplate Empty { get; } = new([TemplatePart.Of(0)], [TemplatePart.Of(0), TemplatePart.Of(1, 1)]);

    public IReadOnlyList<TemplatePart> Single { get; }

    public IReadOnlyList<TemplatePart>? Pair { get; }

    /// <summary>Special tokens in front of one text.</summary>
    public IReadOnlyList<int> Before { get; }

    /// <summary>Special tokens behind it.</summary>
    public IReadOnlyList<int> After { get; }

    /// <summary>The same tokens around one text and around each of two.</summary>
    public static SpecialTokenTemplate Around(IReadOnlyList<int> before, IReadOnlyList<int> after, IReadOnlyList<int> between, int secondType) => new(
        [.. before.Select(id => TemplatePart.Special(id)), TemplatePart.Of(0), .. after.Select(id => TemplatePart.Special(id))],
        [
            .. before.Select(id => TemplatePart.Special(id)),
            TemplatePart.Of(0),
            .. between.Select(id => TemplatePart.Special(id)),
            TemplatePart.Of(1, secondType),
            .. after.Select(id => TemplatePart.Special(id, secondType)),
        ]);

    /// <summary>The template that results when <paramref name="outer"/> is applied to the result of this one.</summary>
    public SpecialTokenTemplate Inside(SpecialTokenTemplate outer) =>
        this == Empty ? outer : outer == Empty ? this : new([.. outer.Single.SelectMany(part => part.Id is null ? Single : [part])], null);
}

/// <summary>Decides which special tokens go around a text, as transformers does.</summary>
internal static class TemplateResolver
{
    public static SpecialTokenTemplate Resolve(TokenizerParts parts, TokenizerConfig config, AddedTokenTable added)
    {
        // A configuration that says whether to add bos and eos overrides the post-processor of the file.
        if (config.AddBos is not null || config.AddEos is not null || parts.AddsBosByDefault)
        {
            bool bos = config.AddBos ?? parts.AddsBosByDefault;
            bool eos = config.AddEos ?? false;
            int[] before = bos && added.NamedId("bos_token") is int bosId ? [bosId] : [];
            int[] after = eos && added.NamedId("eos_token") is int eosId ? [eosId] : [];

            // The second text of a pair has both of its own, with its type.
            return new SpecialTokenTemplate(Around(0), [.. Around(0), .. Around(1)]);

            TemplatePart[] Around(int text) =>
            [
                .. before.Select(id => TemplatePart.Special(id, text)),
                TemplatePart.Of(text, text),
                .. after.Select(id => TemplatePart.Special(id, text)),
            ];
        }

        return parts.NamedTemplate is NamedTemplate named
            ? SpecialTokenTemplate.Around([.. named.Before.Select(Id)], [.. named.After.Select(Id)], [.. named.Between.Select(Id)], named.SecondType)
            : parts.Template ?? SpecialTokenTemplate.Empty;

        int Id(string key) => added.NamedId(key)
            ?? throw TokenizerError.Invalid(parts.File, $"its template needs a {key}, which tokenizer_config.json sets to null");
    }
}
