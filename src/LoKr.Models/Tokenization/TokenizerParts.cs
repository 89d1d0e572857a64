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

    /// <summary>Special tokens around the text by key, for readers that do not know ids yet.</summary>
    public NamedTemplate? NamedTemplate { get; init; }

    /// <summary>Special tokens of the family where the configuration names none, by key such as <c>cls_token</c>.</summary>
    public IReadOnlyDictionary<string, AddedToken> DefaultSpecialTokens { get; init; } = new Dictionary<string, AddedToken>();

    /// <summary>Default of <c>add_bos_token</c>; true for Llama's SentencePiece files.</summary>
    public bool AddsBosByDefault { get; init; }

    /// <summary>Whether the transformers clean-up of spaces may apply after decoding; it never does for BPE models.</summary>
    public bool AllowsCleanUp { get; init; }
}

/// <summary>Special tokens around a text, by key such as <c>cls_token</c>.</summary>
internal sealed record NamedTemplate(IReadOnlyList<string> Before, IReadOnlyList<string> After);

/// <summary>Ids around a text: the template of one sequence.</summary>
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
        // A configuration that says whether to add bos and eos overrides the post-processor of the file.
        if (config.AddBos is not null || config.AddEos is not null || parts.AddsBosByDefault)
        {
            bool bos = config.AddBos ?? parts.AddsBosByDefault;
            bool eos = config.AddEos ?? false;
            return new SpecialTokenTemplate(
                bos && added.NamedId("bos_token") is int bosId ? [bosId] : [],
                eos && added.NamedId("eos_token") is int eosId ? [eosId] : []);
        }

        return parts.NamedTemplate is NamedTemplate named
            ? new SpecialTokenTemplate([.. named.Before.Select(Id)], [.. named.After.Select(Id)])
            : parts.Template ?? SpecialTokenTemplate.Empty;

        int Id(string key) => added.NamedId(key)
            ?? throw TokenizerError.Invalid(parts.File, $"its template needs a {key}, which tokenizer_config.json sets to null");
    }
}
