using System.Text;
using LoKr.Core.IO;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>Reads the decoder of a tokenizer.json.</summary>
internal static class DecoderReader
{
    public static ITokenDecoder Read(JsonFields json)
    {
        switch (json.GetString("type"))
        {
            case "Sequence":
                json.AllowOnly("type", "decoders");
                return new SequenceDecoder([.. json.GetObjects("decoders").Select(Read)]);
            case "ByteLevel":
                json.AllowOnly("type", "add_prefix_space", "trim_offsets", "use_regex");
                return new ByteLevelDecoder();
            case "ByteFallback":
                json.AllowOnly("type");
                return new ByteFallbackDecoder();
            case "Fuse":
                json.AllowOnly("type");
                return new FuseDecoder();
            case "WordPiece":
                json.AllowOnly("type", "prefix", "cleanup");
                return TokenDecoders.WordPiece(json.GetString("prefix"), json.GetBool("cleanup"));
            case "Metaspace":
                json.AllowOnly("type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep");
                char replacement = PatternReader.Character(json, "replacement");
                bool dropsFirst = PatternReader.Scheme(json) != PrependScheme.Never;
                return TokenDecoders.Metaspace(replacement, dropsFirst);
            case "Strip":
                json.AllowOnly("type", "content", "start", "stop");
                char content = PatternReader.Character(json, "content");
                (int start, int stop) = (json.GetIndex("start"), json.GetIndex("stop"));
                return new StripDecoder(character => character == content, start, stop);
            case "Replace":
                json.AllowOnly("type", "pattern", "content");
                return TokenDecoders.Replace(PatternReader.Read(json), json.GetString("content"));
            case "BPEDecoder":
                json.AllowOnly("type", "suffix");
                return json.GetString("suffix") is { Length: > 0 } suffix
                    ? new WordEndDecoder(suffix)
                    : throw json.Unsupported("suffix", "is empty, which is not supported");
            default:
                throw json.Unsupported("type");
        }
    }
}

/// <summary>Reads the normalizer of a tokenizer.json.</summary>
internal static class NormalizerReader
{
    public static Normalizer Read(JsonFields json, TokenizerConfig config)
    {
        switch (json.GetString("type"))
        {
            case "Sequence":
                json.AllowOnly("type", "normalizers");
                return new SequenceNormalizer([.. json.GetObjects("normalizers").Select(part => Read(part, config))]);
            case "BertNormalizer":
                return Bert(json, config);
            case "NFC":
                return Form(json, NormalizationForm.FormC);
            case "NFD":
                return Form(json, NormalizationForm.FormD);
            case "NFKC":
                return Form(json, NormalizationForm.FormKC);
            case "NFKD":
                return Form(json, NormalizationForm.FormKD);
            case "Lowercase":
                json.AllowOnly("type");
                return new LowercaseNormalizer();
            case "StripAccents":
                json.AllowOnly("type");
                return new FilterNormalizer(CharacterClass.IsMark);
            case "Strip":
                json.AllowOnly("type", "strip_left", "strip_right");
                return new TrimNormalizer(json.GetBool("strip_left"), json.GetBool("strip_right"));
            case "Prepend":
                json.AllowOnly("type", "prepend");
                return new PrependNormalizer(json.GetString("prepend"));
            case "Precompiled":
                json.AllowOnly("type", "precompiled_charsmap");
                return Precompiled(json);
            case "Replace":
                json.AllowOnly("type", "pattern", "content");
                return new ReplaceNormalizer(PatternReader.Read(json), json.GetString("content"));
            default:
                throw json.Unsupported("type");
        }
    }

    // Without a map it does nothing.
    private static Normalizer Precompiled(JsonFields json)
    {
        if (!json.Has("precompiled_charsmap"))
        {
            return new SequenceNormalizer([]);
        }

        try
        {
            byte[] map = Convert.FromBase64String(json.GetString("precompiled_charsmap"));
            return map.Length == 0 ? new SequenceNormalizer([]) : new PrecompiledNormalizer(new CharacterMap(map, json.Source));
        }
        catch (FormatException exception)
        {
            throw TokenizerError.Invalid(json.Source, $"'{json.FullName("precompiled_charsmap")}' is not base64", exception);
        }
    }

    private static FormNormalizer Form(JsonFields json, NormalizationForm form)
    {
        json.AllowOnly("type");
        return new FormNormalizer(form);
    }

    private static BertTextNormalizer Bert(JsonFields json, TokenizerConfig config)
    {
        json.AllowOnly("type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase");

        // transformers' BERT classes let their configuration override the file.
        bool overrides = config.TokenizerClass is "BertTokenizer" or "DistilBertTokenizer" or "ElectraTokenizer";
        return new BertTextNormalizer(
            json.GetBool("clean_text"),
            (overrides ? config.HandleChinese : null) ?? json.GetBool("handle_chinese_chars"),
            (overrides ? config.StripAccents : null) ?? json.FindBool("strip_accents"),
            (overrides ? config.LowerCase : null) ?? json.GetBool("lowercase"));
    }
}

/// <summary>Reads the pre-tokenizers of a tokenizer.json as a flat list of steps.</summary>
internal static class PreTokenizerReader
{
    public static void Read(JsonFields json, TokenizerConfig config, List<IPreTokenizer> steps)
    {
        switch (json.GetString("type"))
        {
            case "Sequence":
                json.AllowOnly("type", "pretokenizers");
                foreach (JsonFields part in json.GetObjects("pretokenizers"))
                {
                    Read(part, config, steps);
                }

                break;
            case "BertPreTokenizer":
                json.AllowOnly("type");
                steps.AddRange(Bert());
                break;
            case "ByteLevel":
                steps.Add(ByteLevel(json, config));
                break;
            case "Split":
                json.AllowOnly("type", "pattern", "behavior", "invert");
                steps.Add(Split(PatternReader.Read(json), PatternReader.Behavior(json), json.GetBool("invert", false)));
                break;
            case "Digits":
                json.AllowOnly("type", "individual_digits");
                steps.Add(Split(
                    new RunePattern(CharacterClass.IsNumeric), json.GetBool("individual_digits") ? SplitBehavior.Isolated : SplitBehavior.Contiguous));
                break;
            case "Punctuation":
                json.AllowOnly("type", "behavior");
                steps.Add(Split(
                    new RunePattern(CharacterClass.IsPunctuation), json.Has("behavior") ? PatternReader.Behavior(json) : SplitBehavior.Isolated));
                break;
            case "Whitespace":
                json.AllowOnly("type");
                steps.Add(Split(new WordPattern(), SplitBehavior.Removed, invert: true));
                break;
            case "WhitespaceSplit":
                json.AllowOnly("type");
                steps.Add(Split(new RunePattern(Rune.IsWhiteSpace), SplitBehavior.Removed));
                break;
            case "CharDelimiterSplit":
                json.AllowOnly("type", "delimiter");
                steps.Add(Split(new LiteralPattern(PatternReader.Character(json, "delimiter").ToString()), SplitBehavior.Removed));
                break;
            case "Metaspace":
                json.AllowOnly("type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep");
                steps.Add(new MetaspacePreTokenizer(PatternReader.Character(json, "replacement"), PatternReader.Scheme(json), json.GetBool("split", true)));
                break;
            default:
                throw json.Unsupported("type");
        }
    }

    /// <summary>Splits at white space, then isolates punctuation.</summary>
    public static IEnumerable<IPreTokenizer> Bert() =>
    [
        Split(new RunePattern(Rune.IsWhiteSpace), SplitBehavior.Removed),
        Split(new RunePattern(CharacterClass.IsPunctuation), SplitBehavior.Isolated),
    ];

    public static SplitPreTokenizer Split(ITextPattern pattern, SplitBehavior behavior, bool invert = false) =>
        new(new PatternSplitter(pattern, behavior, invert));

    private static ByteLevelPreTokenizer ByteLevel(JsonFields json, TokenizerConfig config)
    {
        json.AllowOnly("type", "add_prefix_space", "trim_offsets", "use_regex");

        // transformers' classes of these two families let their configuration override the file.
        bool overrides = config.TokenizerClass is "GPT2Tokenizer" or "RobertaTokenizer";
        return new ByteLevelPreTokenizer(
            (overrides ? config.AddPrefixSpace : null) ?? json.GetBool("add_prefix_space"), json.GetBool("use_regex", true));
    }
}

/// <summary>Reads patterns and split behaviors, which several components share.</summary>
internal static class PatternReader
{
    public static ITextPattern Read(JsonFields owner)
    {
        JsonFields pattern = owner.GetObject("pattern").AllowOnly("String", "Regex");
        if (pattern.Has("String") == pattern.Has("Regex"))
        {
            throw owner.Invalid("pattern", "is neither a String nor a Regex");
        }

        if (pattern.Has("Regex"))
        {
            return new CodePointRegex(pattern.GetString("Regex"), owner.Source, pattern.FullName("Regex"));
        }

        string literal = pattern.GetString("String");
        return literal.Length > 0 ? new LiteralPattern(literal) : throw pattern.Unsupported("String", "is empty, which is not supported");
    }

    public static SplitBehavior Behavior(JsonFields owner) => owner.GetString("behavior") switch
    {
        "Removed" => SplitBehavior.Removed,
        "Isolated" => SplitBehavior.Isolated,
        "MergedWithPrevious" => SplitBehavior.MergedWithPrevious,
        "MergedWithNext" => SplitBehavior.MergedWithNext,
        "Contiguous" => SplitBehavior.Contiguous,
        _ => throw owner.Unsupported("behavior"),
    };

    /// <summary>Reads a string of one character.</summary>
    public static char Character(JsonFields owner, string key)
    {
        string text = owner.GetString(key);
        return text.Length == 1 ? text[0] : throw owner.Unsupported(key, $"is '{text}'; only one character is supported");
    }

    /// <summary>
    /// Reads when Metaspace prepends its character. Old files have only <c>add_prefix_space</c>.
    /// </summary>
    public static PrependScheme Scheme(JsonFields owner)
    {
        bool prefix = owner.GetBool("add_prefix_space", true);
        PrependScheme scheme = owner.GetChoice(
            "prepend_scheme",
            prefix ? PrependScheme.Always : PrependScheme.Never,
            ("always", PrependScheme.Always),
            ("first", PrependScheme.First),
            ("never", PrependScheme.Never));
        return prefix || scheme == PrependScheme.Never
            ? scheme
            : throw owner.Invalid("add_prefix_space", "contradicts prepend_scheme");
    }
}
