using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>A family's rules for a SentencePiece Unigram model that its file does not state.</summary>
internal sealed class UnigramFamily
{
    // Numbers of fairseq: its own special tokens come first, and <pad> has no piece.
    private static readonly UnigramFamily s_xlmRoberta = new()
    {
        Classes = ["XLMRobertaTokenizer"],
        IdOf = piece => piece + 1,
        Fixed = new() { ["<s>"] = 0, ["<pad>"] = 1, ["</s>"] = 2, ["<unk>"] = 3 },
        MaskIdOf = count => count + 1,
        Template = ByteLevelFamily.RobertaTemplate,
        SpecialTokens = ByteLevelFamily.RobertaTokens,
    };

    private static readonly UnigramFamily s_deberta = new()
    {
        Classes = ["DebertaV2Tokenizer"],
        IdOf = piece => piece,
        Fixed = [],
        MaskIdOf = count => count,
        Template = new NamedTemplate(["cls_token"], ["sep_token"], ["sep_token"], SecondType: 1),
        SpecialTokens = new Dictionary<string, AddedToken>
        {
            ["bos_token"] = new("[CLS]"),
            ["eos_token"] = new("[SEP]"),
            ["unk_token"] = new("[UNK]"),
            ["sep_token"] = new("[SEP]"),
            ["pad_token"] = new("[PAD]"),
            ["cls_token"] = new("[CLS]"),
            ["mask_token"] = new("[MASK]"),
        },
    };

    private UnigramFamily()
    {
    }

    /// <summary>Tokenizer classes that it is known by.</summary>
    public required IReadOnlyList<string> Classes { get; init; }

    /// <summary>The id of a piece by its number.</summary>
    public required Func<int, int> IdOf { get; init; }

    /// <summary>Ids of special tokens that do not follow from the number of their piece.</summary>
    public required Dictionary<string, int> Fixed { get; init; }

    /// <summary>The id of the mask token, which has no piece, by the number of pieces.</summary>
    public required Func<int, int> MaskIdOf { get; init; }

    public required NamedTemplate Template { get; init; }

    public required IReadOnlyDictionary<string, AddedToken> SpecialTokens { get; init; }

    /// <summary>Finds the family by the tokenizer class, else by the name of the file.</summary>
    public static UnigramFamily Find(string path, TokenizerConfig config)
    {
        UnigramFamily byFile = Path.GetFileName(path) == TokenizerFolder.DebertaModel ? s_deberta : s_xlmRoberta;
        return config.TokenizerClass is null or "TokenizersBackend" or "PreTrainedTokenizer" || byFile.Classes.Contains(config.TokenizerClass)
            ? byFile
            : throw TokenizerError.Unsupported(path, $"the tokenizer class '{config.TokenizerClass}'", "Use a folder that also holds tokenizer.json.");
    }
}

/// <summary>
/// Reads a SentencePiece Unigram tokenizer from its model alone: XLM-RoBERTa's <c>sentencepiece.bpe.model</c> (its name is historical) or
/// DeBERTa's <c>spm.model</c>. Special tokens are found in the text first; SentencePiece normalizes and cuts what is between them.
/// </summary>
internal static class UnigramReader
{
    private const char Space = '\u2581';

    public static TokenizerParts Read(string path, TokenizerConfig config)
    {
        UnigramFamily family = UnigramFamily.Find(path, config);
        if (config.LowerCase == true)
        {
            throw TokenizerError.Unsupported(path, "the option 'do_lower_case'", "Use a folder that also holds tokenizer.json.");
        }

        SentencePieceFile file = SentencePieceFile.ReadUnigram(path);
        Dictionary<string, int> ids = new(family.Fixed, StringComparer.Ordinal);
        List<UnigramPiece> pieces = [];
        (double lowest, double highest) = Scores(file, path);
        int? unknown = null;
        for (int number = 0; number < file.Pieces.Count; number++)
        {
            SentencePiece piece = file.Pieces[number];
            bool isFixed = family.Fixed.TryGetValue(piece.Text, out int id);
            id = isFixed ? id : family.IdOf(number);
            if (piece.Text.Length == 0 || (!isFixed && !ids.TryAdd(piece.Text, id)))
            {
                throw TokenizerError.Invalid(path, $"the piece '{piece.Text}' is empty or occurs twice");
            }

            unknown = piece.Kind == SentencePieceKind.Unknown ? id : unknown;
            if (piece.Kind is SentencePieceKind.Normal or SentencePieceKind.UserDefined)
            {
                pieces.Add(new UnigramPiece(piece.Text, id, ScoreOf(piece, highest)));
            }
        }

        UnigramSettings settings = new()
        {
            Vocabulary = new Vocabulary(ids),
            Pieces = pieces,
            LowestScore = lowest,
            UnknownId = unknown ?? throw TokenizerError.Invalid(path, "it has no unknown piece"),
            ByteFallback = file.ByteFallback,
            SinglePrecision = true,
        };
        Dictionary<string, AddedToken> special = new(family.SpecialTokens);
        special["mask_token"] = special["mask_token"] with { StatedId = family.MaskIdOf(file.Pieces.Count) };
        return new TokenizerParts
        {
            File = path,
            Normalizer = new SentencePieceNormalizer(
                file.CharsMap.Length == 0 ? null : new CharacterMap(file.CharsMap.Span, path),
                file.Pieces.Where(piece => piece.Kind == SentencePieceKind.UserDefined).Select(piece => piece.Text),
                file.AddDummyPrefix,
                file.RemovesExtraSpaces),
            Model = new UnigramModel(settings, path),
            Decoder = TokenDecoders.SentencePiece(Space, StripDecoder.All(static character => character == ' ')),
            NamedTemplate = family.Template,
            DefaultSpecialTokens = special,
        };
    }

    private static (double Lowest, double Highest) Scores(SentencePieceFile file, string path)
    {
        float[] scores = [.. file.Pieces.Where(piece => piece.Kind == SentencePieceKind.Normal).Select(piece => piece.Score)];
        return scores.Length > 0 ? (scores.Min(), scores.Max()) : throw TokenizerError.Invalid(path, "it holds no normal pieces");
    }

    // A piece that the user defined always wins.
    private static double ScoreOf(SentencePiece piece, double highest) => piece.Kind == SentencePieceKind.UserDefined
        ? (float)((System.Text.Encoding.UTF8.GetByteCount(piece.Text) * highest) - 0.1)
        : piece.Score;
}
