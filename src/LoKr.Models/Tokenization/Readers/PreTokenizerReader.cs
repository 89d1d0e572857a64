using System.Text;
using LoKr.Models.Tokenization.Patterns;
using LoKr.Models.Tokenization.PreTokenizers;

namespace LoKr.Models.Tokenization.Readers;

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
        new(new SplitPreTokenizer(pattern, behavior, invert));

    private static ByteLevelStep ByteLevel(JsonComponent json, TokenizerConfig config)
    {
        json.Allow("add_prefix_space", "trim_offsets", "use_regex");

        // transformers' classes of these two families let their configuration overrule the file.
        bool overrules = config.TokenizerClass is "GPT2Tokenizer" or "RobertaTokenizer";
        return new ByteLevelStep(
            (overrules ? config.AddPrefixSpace : null) ?? json.Flag("add_prefix_space"), json.Flag("use_regex", fallback: true));
    }
}
