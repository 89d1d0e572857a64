using System.Globalization;
using System.Text;
using LoKr.Core.IO;
using LoKr.Models.Tokenization.Models;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>The parts of a family of byte-level BPE tokenizers that its vocab.json and merges.txt do not define.</summary>
internal sealed class ByteLevelFamily
{
    private const string QwenPattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private const string ClipPattern =
        @"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

    /// <summary>The template of RoBERTa, and of XLM-RoBERTa after it.</summary>
    public static NamedTemplate RobertaTemplate { get; } = new(["cls_token"], ["sep_token"], ["sep_token", "sep_token"], SecondType: 0);

    /// <summary>The special tokens of RoBERTa, and of XLM-RoBERTa after it.</summary>
    public static IReadOnlyDictionary<string, AddedToken> RobertaTokens { get; } = new Dictionary<string, AddedToken>
    {
        ["bos_token"] = new("<s>"),
        ["eos_token"] = new("</s>"),
        ["unk_token"] = new("<unk>"),
        ["sep_token"] = new("</s>"),
        ["pad_token"] = new("<pad>"),
        ["cls_token"] = new("<s>"),
        ["mask_token"] = new("<mask>", LeftStrip: true),
    };

    private static readonly ByteLevelFamily s_gpt2 = new()
    {
        PreTokenizers = (prefixSpace, _) => [new ByteLevelPreTokenizer(prefixSpace, useRegex: true)],
        SpecialTokens = new Dictionary<string, AddedToken>
        {
            ["bos_token"] = new("<|endoftext|>"),
            ["eos_token"] = new("<|endoftext|>"),
            ["unk_token"] = new("<|endoftext|>"),
        },
    };

    private static readonly ByteLevelFamily s_roberta = new()
    {
        PreTokenizers = s_gpt2.PreTokenizers,
        Template = RobertaTemplate,
        SpecialTokens = RobertaTokens,
    };

    private static readonly ByteLevelFamily s_qwen2 = new()
    {
        Normalizer = () => new FormNormalizer(NormalizationForm.FormC),
        PreTokenizers = (prefixSpace, file) =>
        [
            PreTokenizerReader.Split(new CodePointRegex(QwenPattern, file), SplitBehavior.Isolated),
            new ByteLevelPreTokenizer(prefixSpace, useRegex: false),
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
        PreTokenizers = (_, file) =>
        [
            PreTokenizerReader.Split(new CodePointRegex(ClipPattern, file), SplitBehavior.Removed, invert: true),
            new ByteLevelPreTokenizer(addPrefixSpace: false, useRegex: true),
        ],
        EndOfWordSuffix = "</w>",
        Template = new NamedTemplate(["bos_token"], ["eos_token"], ["eos_token", "eos_token"], SecondType: 0),
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

    /// <summary>Creates the pre-tokenizers, given whether a leading space is added, and the file for errors.</summary>
    public required Func<bool, string, IReadOnlyList<IPreTokenizer>> PreTokenizers { get; init; }

    public string? EndOfWordSuffix { get; private init; }

    /// <summary>Special tokens around a text.</summary>
    public NamedTemplate Template { get; private init; } = NamedTemplate.None;

    public required IReadOnlyDictionary<string, AddedToken> SpecialTokens { get; init; }

    /// <summary>Finds the family by tokenizer class, else by special tokens, else by the type of the model.</summary>
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

        // Only RoBERTa's family has a class token and a separator token.
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
            _ => throw Unknown("a known family, which neither tokenizer_config.json nor config.json names"),
        };

        Core.Errors.LoKrException Unknown(string what) =>
            TokenizerError.Unsupported(file, what, "Use a folder that also holds tokenizer.json.");
    }
}

/// <summary>
/// Reads a byte-level BPE tokenizer from <c>vocab.json</c> and <c>merges.txt</c>. These files define neither how text is split
/// nor the special tokens around it, so the family must be known.
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
            PreTokenizers = family.PreTokenizers(config.AddPrefixSpace ?? false, path),
            Decoder = family.EndOfWordSuffix is string suffix ? TokenDecoders.Clip(decoder, suffix) : decoder,
            NamedTemplate = family.Template,
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
                throw TokenizerError.Invalid(path, string.Create(CultureInfo.InvariantCulture, $"line {number} is not a pair of tokens"));
            }

            merges.Add((pair[0], pair[1]));
        }

        return merges;
    }
}
