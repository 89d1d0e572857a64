using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>Reads a BERT-like WordPiece tokenizer from <c>vocab.txt</c>.</summary>
internal static class VocabTxtReader
{
    private const string Prefix = "##";
    private const int LongestWord = 100;

    private static readonly Dictionary<string, AddedToken> s_specialTokens = new()
    {
        ["unk_token"] = new("[UNK]"),
        ["sep_token"] = new("[SEP]"),
        ["pad_token"] = new("[PAD]"),
        ["cls_token"] = new("[CLS]"),
        ["mask_token"] = new("[MASK]"),
    };

    public static TokenizerParts Read(string path, TokenizerConfig config)
    {
        if (config.TokenizerClass is not (null or "BertTokenizer" or "DistilBertTokenizer" or "ElectraTokenizer" or "MPNetTokenizer"
            or "TokenizersBackend" or "PreTrainedTokenizer"))
        {
            throw TokenizerError.Unsupported(path, $"the tokenizer class '{config.TokenizerClass}'", "Use a folder that also holds tokenizer.json.");
        }

        Dictionary<string, int> ids = new(StringComparer.Ordinal);
        int line = 0;
        foreach (string token in ReadLines(path))
        {
            // Of equal lines the last one counts, as in the reference.
            ids[token] = line++;
        }

        if (ids.Count == 0)
        {
            throw TokenizerError.Invalid(path, "it is empty");
        }

        string unknown = config.Named.TryGetValue("unk_token", out AddedToken? named) && named is not null ? named.Content : "[UNK]";
        return new TokenizerParts
        {
            File = path,
            Model = new WordPieceModel(new Vocabulary(ids), unknown, Prefix, LongestWord, path),
            Normalizer = new BertTextNormalizer(
                cleanText: true, config.HandleChinese ?? true, config.StripAccents, config.LowerCase ?? true),
            PreTokenizers = [.. PreTokenizerReader.Bert()],
            Decoder = TokenDecoders.WordPiece(Prefix, cleanUp: true),
            NamedTemplate = config.TokenizerClass == "MPNetTokenizer"
                ? new NamedTemplate(["cls_token"], ["sep_token"], ["sep_token", "sep_token"], SecondType: 1)
                : new NamedTemplate(["cls_token"], ["sep_token"], ["sep_token"], SecondType: 1),
            DefaultSpecialTokens = s_specialTokens,
            AllowsCleanUp = true,
        };
    }

    private static IEnumerable<string> ReadLines(string path)
    {
        using StreamReader reader = new(path);
        while (reader.ReadLine() is string line)
        {
            yield return line.TrimEnd();
        }
    }
}
