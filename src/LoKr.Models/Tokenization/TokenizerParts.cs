using LoKr.Models.Tokenization.Cores;
using LoKr.Models.Tokenization.Decoders;
using LoKr.Models.Tokenization.PreTokenizers;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization;

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
