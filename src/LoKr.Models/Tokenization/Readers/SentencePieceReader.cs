using LoKr.Models.Tokenization.Cores;
using LoKr.Models.Tokenization.Decoders;
using LoKr.Models.Tokenization.PreTokenizers;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>Reads the SentencePiece BPE tokenizer of Llama 2 and Mistral from <c>tokenizer.model</c>.</summary>
internal static class SentencePieceReader
{
    private const char Space = '\u2581';

    private static readonly Dictionary<string, AddedToken> s_specialTokens = new()
    {
        ["bos_token"] = new("<s>"),
        ["eos_token"] = new("</s>"),
        ["unk_token"] = new("<unk>"),
    };

    public static TokenizerParts Read(string path, TokenizerConfig config)
    {
        if (config.TokenizerClass is not (null or "LlamaTokenizer" or "TokenizersBackend" or "PreTrainedTokenizer"))
        {
            throw TokenizerError.Unsupported(path, $"the tokenizer class '{config.TokenizerClass}'", "Use a folder that also holds tokenizer.json.");
        }

        SentencePieceFile file = SentencePieceFile.Read(path);
        bool prefix = config.AddPrefixSpace ?? file.AddDummyPrefix;
        List<ITokenDecoder> decoders =
        [
            new MapDecoder((token, _) => token.Replace(Space, ' ')),
            new ByteFallbackDecoder(),
            new FuseDecoder(),
        ];
        if (prefix)
        {
            decoders.Add(new MapDecoder((text, _) => TokenMaps.Strip(text, ' ', start: 1, stop: 0)));
        }

        return new TokenizerParts
        {
            File = path,
            Model = new SentencePieceBpe(file.Pieces, file.ByteFallback, path),
            Steps =
            [
                new SentencePieceStep(Space, !prefix ? PrependScheme.Never
                    : config.Legacy == true ? PrependScheme.Always
                    : PrependScheme.First),
            ],
            Decoder = new SequenceDecoder(decoders),
            AddedTokens = [.. AddedTokens(file)],
            DefaultSpecialTokens = s_specialTokens,
            AddsBosByDefault = true,
        };
    }

    // What SentencePiece cuts out of a text whole, transformers makes an added token; control pieces are special ones.
    private static IEnumerable<AddedToken> AddedTokens(SentencePieceFile file) => file.Pieces
        .Where(piece => piece.Kind is SentencePieceKind.Unknown or SentencePieceKind.Control or SentencePieceKind.UserDefined)
        .Select(piece => new AddedToken(piece.Text, Special: piece.Kind != SentencePieceKind.UserDefined));
}
