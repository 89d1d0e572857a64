using System.Text;
using LoKr.Models.Tokenization.Patterns;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>Reads the decoder of a tokenizer.json.</summary>
internal static class DecoderReader
{
    public static ITokenDecoder Read(JsonComponent json)
    {
        switch (json.Type)
        {
            case "Sequence":
                json.Allow("decoders");
                return new SequenceDecoder([.. json.Objects("decoders").Select(Read)]);
            case "ByteLevel":
                json.Allow("add_prefix_space", "trim_offsets", "use_regex");
                return new ByteLevelDecoder();
            case "ByteFallback":
                json.Allow();
                return new ByteFallbackDecoder();
            case "Fuse":
                json.Allow();
                return new FuseDecoder();
            case "WordPiece":
                json.Allow("prefix", "cleanup");
                return WordPiece(json.Text("prefix"), json.Flag("cleanup"));
            case "Metaspace":
                json.Allow("replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep");
                char replacement = PatternReader.Character(json, "replacement");
                bool dropsFirst = PatternReader.Scheme(json) != PrependScheme.Never;
                return new MapDecoder((token, index) => TokenMaps.Metaspace(token, index, replacement, dropsFirst));
            case "Strip":
                json.Allow("content", "start", "stop");
                char content = PatternReader.Character(json, "content");
                (int start, int stop) = (json.Number("start"), json.Number("stop"));
                return new MapDecoder((token, _) => TokenMaps.Strip(token, content, start, stop));
            case "Replace":
                json.Allow("pattern", "content");
                ITextPattern pattern = PatternReader.Read(json);
                string text = json.Text("content");
                return new MapDecoder((token, _) => ReplaceNormalizer.Replace(token, pattern, text));
            case "BPEDecoder":
                json.Allow("suffix");
                return new WordEndDecoder(json.Text("suffix"));
            default:
                throw json.UnsupportedType();
        }
    }

    public static ITokenDecoder WordPiece(string prefix, bool cleanUp) =>
        new MapDecoder((token, index) => TokenMaps.WordPiece(token, index, prefix, cleanUp));
}

/// <summary>Reads the normalizer of a tokenizer.json.</summary>
internal static class NormalizerReader
{
    public static Normalizer Read(JsonComponent json, TokenizerConfig config)
    {
        switch (json.Type)
        {
            case "Sequence":
                json.Allow("normalizers");
                return new SequenceNormalizer([.. json.Objects("normalizers").Select(part => Read(part, config))]);
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
                json.Allow();
                return new LowercaseNormalizer();
            case "StripAccents":
                json.Allow();
                return new FilterNormalizer(CharacterClass.IsMark);
            case "Strip":
                json.Allow("strip_left", "strip_right");
                return new TrimNormalizer(json.Flag("strip_left"), json.Flag("strip_right"));
            case "Prepend":
                json.Allow("prepend");
                return new PrependNormalizer(json.Text("prepend"));
            case "Replace":
                json.Allow("pattern", "content");
                return new ReplaceNormalizer(PatternReader.Read(json), json.Text("content"));
            default:
                throw json.UnsupportedType();
        }
    }

    private static FormNormalizer Form(JsonComponent json, NormalizationForm form)
    {
        json.Allow();
        return new FormNormalizer(form);
    }

    private static BertTextNormalizer Bert(JsonComponent json, TokenizerConfig config)
    {
        json.Allow("clean_text", "handle_chinese_chars", "strip_accents", "lowercase");

        // transformers' BERT classes let their configuration overrule the file.
        bool overrules = config.TokenizerClass is "BertTokenizer" or "DistilBertTokenizer" or "ElectraTokenizer";
        return new BertTextNormalizer(
            json.Flag("clean_text"),
            (overrules ? config.HandleChinese : null) ?? json.Flag("handle_chinese_chars"),
            (overrules ? config.StripAccents : null) ?? json.OptionalFlag("strip_accents"),
            (overrules ? config.LowerCase : null) ?? json.Flag("lowercase"));
    }
}

/// <summary>Reads the pre-tokenizers of a tokenizer.json as a flat list of steps.</summary>
internal static class PreTokenizerReader
{
    public static void Read(JsonComponent json, TokenizerConfig config, List<IPieceStep> steps)
    {
        switch (json.Type)
        {
            case "Sequence":
                json.Allow("pretokenizers");
                foreach (JsonComponent part in json.Objects("pretokenizers"))
                {
                    Read(part, config, steps);
                }

                break;
            case "BertPreTokenizer":
                json.Allow();
                steps.AddRange(Bert());
                break;
            case "ByteLevel":
                steps.Add(ByteLevel(json, config));
                break;
            case "Split":
                json.Allow("pattern", "behavior", "invert");
                steps.Add(Split(PatternReader.Read(json), PatternReader.Behavior(json), json.Flag("invert", fallback: false)));
                break;
            case "Digits":
                json.Allow("individual_digits");
                steps.Add(Split(
                    new RunePattern(CharacterClass.IsNumeric), json.Flag("individual_digits") ? SplitBehavior.Isolated : SplitBehavior.Contiguous));
                break;
            case "Punctuation":
                json.Allow("behavior");
                steps.Add(Split(
                    new RunePattern(CharacterClass.IsPunctuation), json.Has("behavior") ? PatternReader.Behavior(json) : SplitBehavior.Isolated));
                break;
            case "Whitespace":
                json.Allow();
                steps.Add(Split(new WordPattern(), SplitBehavior.Removed, invert: true));
                break;
            case "WhitespaceSplit":
                json.Allow();
                steps.Add(Split(new RunePattern(Rune.IsWhiteSpace), SplitBehavior.Removed));
                break;
            case "CharDelimiterSplit":
                json.Allow("delimiter");
                steps.Add(Split(new LiteralPattern(PatternReader.Character(json, "delimiter").ToString()), SplitBehavior.Removed));
                break;
            case "Metaspace":
                json.Allow("replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep");
                steps.Add(new MetaspaceStep(PatternReader.Character(json, "replacement"), PatternReader.Scheme(json), json.Flag("split", fallback: true)));
                break;
            default:
                throw json.UnsupportedType();
        }
    }

    /// <summary>Splits at white space, then sets punctuation apart.</summary>
    public static IEnumerable<IPieceStep> Bert() =>
    [
        Split(new RunePattern(Rune.IsWhiteSpace), SplitBehavior.Removed),
        Split(new RunePattern(CharacterClass.IsPunctuation), SplitBehavior.Isolated),
    ];

    public static SplitStep Split(ITextPattern pattern, SplitBehavior behavior, bool invert = false) =>
        new(new PatternSplitter(pattern, behavior, invert));

    private static ByteLevelStep ByteLevel(JsonComponent json, TokenizerConfig config)
    {
        json.Allow("add_prefix_space", "trim_offsets", "use_regex");

        // transformers' classes of these two families let their configuration overrule the file.
        bool overrules = config.TokenizerClass is "GPT2Tokenizer" or "RobertaTokenizer";
        return new ByteLevelStep(
            (overrules ? config.AddPrefixSpace : null) ?? json.Flag("add_prefix_space"), json.Flag("use_regex", fallback: true));
    }
}

/// <summary>Reads patterns and split behaviors, which several components share.</summary>
internal static class PatternReader
{
    public static ITextPattern Read(JsonComponent owner)
    {
        JsonComponent pattern = owner.Object("pattern").Allow("String", "Regex");
        if (pattern.Has("String") == pattern.Has("Regex"))
        {
            throw owner.Invalid("has a pattern that is neither a String nor a Regex");
        }

        if (pattern.Has("Regex"))
        {
            return new CodePointRegex(pattern.Text("Regex"), owner.File);
        }

        string literal = pattern.Text("String");
        return literal.Length > 0 ? new LiteralPattern(literal) : throw owner.Unsupported($"the empty pattern of {owner.Place}");
    }

    public static SplitBehavior Behavior(JsonComponent owner) => owner.Text("behavior") switch
    {
        "Removed" => SplitBehavior.Removed,
        "Isolated" => SplitBehavior.Isolated,
        "MergedWithPrevious" => SplitBehavior.MergedWithPrevious,
        "MergedWithNext" => SplitBehavior.MergedWithNext,
        "Contiguous" => SplitBehavior.Contiguous,
        string other => throw owner.Unsupported($"the behavior '{other}' of {owner.Place}"),
    };

    /// <summary>A text of one character.</summary>
    public static char Character(JsonComponent owner, string key)
    {
        string text = owner.Text(key);
        return text.Length == 1 ? text[0] : throw owner.Unsupported($"the {key} '{text}' of {owner.Place}, which is not one character");
    }

    /// <summary>
    /// When Metaspace puts its character in front. Old files have only <c>add_prefix_space</c>.
    /// </summary>
    public static PrependScheme Scheme(JsonComponent owner)
    {
        bool prefix = owner.Flag("add_prefix_space", fallback: true);
        PrependScheme scheme = owner.OptionalText("prepend_scheme") switch
        {
            null => prefix ? PrependScheme.Always : PrependScheme.Never,
            "always" => PrependScheme.Always,
            "first" => PrependScheme.First,
            "never" => PrependScheme.Never,
            string other => throw owner.Unsupported($"the prepend_scheme '{other}' of {owner.Place}"),
        };
        return prefix || scheme == PrependScheme.Never
            ? scheme
            : throw owner.Invalid("says in add_prefix_space the opposite of prepend_scheme");
    }
}
