using System.Globalization;
using System.Text;
using LoKr.Core.IO;
using LoKr.Models.Tokenization.Models;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>What a family of byte-level BPE tokenizers does that its vocab.json and merges.txt do not say.</summary>
internal sealed class ByteLevelFamily
{
    private const string QwenPattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private const string ClipPattern =
        @"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

    private static readonly ByteLevelFamily s_gpt2 = new()
    {
        Steps = (prefixSpace, _) => [new ByteLevelStep(prefixSpace, useRegex: true)],
        SpecialTokens = new Dictionary<string, AddedToken>
        {
            ["bos_token"] = new("<|endoftext|>"),
            ["eos_token"] = new("<|endoftext|>"),
            ["unk_token"] = new("<|endoftext|>"),
        },
    };

    private static readonly ByteLevelFamily s_roberta = new()
    {
        Steps = s_gpt2.Steps,
        Before = ["cls_token"],
        After = ["sep_token"],
        SpecialTokens = new Dictionary<string, AddedToken>
        {
            ["bos_token"] = new("<s>"),
            ["eos_token"] = new("</s>"),
            ["unk_token"] = new("<unk>"),
            ["sep_token"] = new("</s>"),
            ["pad_token"] = new("<pad>"),
            ["cls_token"] = new("<s>"),
            ["mask_token"] = new("<mask>", LeftStrip: true),
        },
    };

    private static readonly ByteLevelFamily s_qwen2 = new()
    {
        Normalizer = () => new FormNormalizer(NormalizationForm.FormC),
        Steps = (prefixSpace, file) =>
        [
            PreTokenizerReader.Split(new CodePointRegex(QwenPattern, file), SplitBehavior.Isolated),
            new ByteLevelStep(prefixSpace, useRegex: false),
        ],
        SpecialTokens = new Dictionary<string, AddedToken>
        {
            ["eos_token"] = new("<|endoftext|>"),
            ["unk_token"] = new("<|endoftext|>"),
            ["pad_token"] = new("<|endoftext|>"),
        },
    };

    private static readonly ByteLevelFamily s_clip = new()
    {
        Normalizer = () => new SequenceNormalizer(
        [
            new FormNormalizer(NormalizationForm.FormC),
            new ReplaceNormalizer(new CodePointRegex(@"\s+", "CLIP"), " "),
            new LowercaseNormalizer(),
        ]),
        Steps = (_, file) =>
        [
            PreTokenizerReader.Split(new CodePointRegex(ClipPattern, file), SplitBehavior.Removed, invert: true),
            new ByteLevelStep(addPrefixSpace: false, useRegex: true),
        ],
        EndOfWordSuffix = "</w>",
        Before = ["bos_token"],
        After = ["eos_token"],
        SpecialTokens = new Dictionary<string, AddedToken>
        {
            ["bos_token"] = new("<|startoftext|>"),
            ["eos_token"] = new("<|endoftext|>"),
            ["unk_token"] = new("<|endoftext|>"),
            ["pad_token"] = new("<|endoftext|>"),
        },
    };

    private ByteLevelFamily()
    {
    }

    public Func<Normalizer>? Normalizer { get; private init; }

    /// <summary>The pre-tokenizers, given whether a space goes in front and the file for errors.</summary>
    public required Func<bool, string, IReadOnlyList<IPieceStep>> Steps { get; init; }

    public string? EndOfWordSuffix { get; private init; }

    /// <summary>Keys of the special tokens before a text.</summary>
    public IReadOnlyList<string> Before { get; private init; } = [];

    /// <summary>Keys of the special tokens after a text.</summary>
    public IReadOnlyList<string> After { get; private init; } = [];

    public required IReadOnlyDictionary<string, AddedToken> SpecialTokens { get; init; }

    /// <summary>The family that the configuration names: by tokenizer class, else by its special tokens, else by the model's type.</summary>
    public static ByteLevelFamily Find(TokenizerFolder folder, TokenizerConfig config, string file)
    {
        switch (config.TokenizerClass)
        {
            case "GPT2Tokenizer":
                return s_gpt2;
            case "RobertaTokenizer" or "BartTokenizer" or "LongformerTokenizer" or "LEDTokenizer":
                return s_roberta;
            case "Qwen2Tokenizer":
                return s_qwen2;
            case "CLIPTokenizer":
                return s_clip;
            case null or "TokenizersBackend" or "PreTrainedTokenizer":
                break;
            default:
                throw Unknown($"the tokenizer class '{config.TokenizerClass}'");
        }

        // Of these families only RoBERTa's has a class and a separator token.
        if (config.Named.GetValueOrDefault("cls_token") is not null && config.Named.GetValueOrDefault("sep_token") is not null)
        {
            return s_roberta;
        }

        string modelConfig = folder.PathOf("config.json");
        string? modelType = File.Exists(modelConfig) ? TokenizerError.ReadJson(modelConfig).FindString("model_type") : null;
        return modelType switch
        {
            "gpt2" => s_gpt2,
            "roberta" or "bart" or "longformer" => s_roberta,
            "qwen2" or "qwen3" => s_qwen2,
            "clip" or "clip_text_model" => s_clip,
            _ => throw Unknown("to know its family, which neither tokenizer_config.json nor config.json says"),
        };

        Core.Errors.LoKrException Unknown(string what) =>
            TokenizerError.Unsupported(file, what, "Use a folder that also holds tokenizer.json.");
    }
}

/// <summary>
/// Reads a byte-level BPE tokenizer from <c>vocab.json</c> and <c>merges.txt</c>. These files do not say how text is split or
/// what goes around it, so the family has to be known.
/// </summary>
internal static class VocabJsonReader
{
    public static TokenizerParts Read(TokenizerFolder folder, TokenizerConfig config)
    {
        string path = folder.PathOf(TokenizerFolder.VocabJson);
        string mergesPath = folder.PathOf(TokenizerFolder.MergesTxt);
        if (!File.Exists(mergesPath))
        {
            throw TokenizerError.Invalid(path, $"'{TokenizerFolder.MergesTxt}' is missing beside it");
        }

        ByteLevelFamily family = ByteLevelFamily.Find(folder, config, path);
        JsonFields json = TokenizerError.ReadJson(path);
        BpeSettings settings = new()
        {
            Vocabulary = TokenizerJsonReader.ReadVocabulary(json),
            Merges = ReadMerges(mergesPath),
            EndOfWordSuffix = family.EndOfWordSuffix ?? "",
        };
        Normalizer? normalizer = family.Normalizer?.Invoke();
        ITokenDecoder decoder = new ByteLevelDecoder();
        return new TokenizerParts
        {
            File = path,
            Model = new BpeModel(settings, path),
            Normalizer = normalizer,
            Steps = family.Steps(config.AddPrefixSpace ?? false, path),
            Decoder = family.EndOfWordSuffix is string suffix ? ClipDecoder.Around(decoder, suffix) : decoder,
            NamedTemplate = (family.Before, family.After),
            DefaultSpecialTokens = family.SpecialTokens,
        };
    }

    private static List<(string Left, string Right)> ReadMerges(string path)
    {
        List<(string, string)> merges = [];
        int number = 0;
        foreach (string line in File.ReadLines(path, Encoding.UTF8))
        {
            number++;
            if (line.Length == 0 || line.StartsWith("#version", StringComparison.Ordinal))
            {
                continue;
            }

            string[] pair = line.Split(' ');
            if (pair.Length != 2 || pair[0].Length == 0 || pair[1].Length == 0)
            {
                throw TokenizerError.Invalid(path, string.Create(CultureInfo.InvariantCulture, $"line {number} is no pair of tokens"));
            }

            merges.Add((pair[0], pair[1]));
        }

        return merges;
    }
}
