using System.Text;
using LoKr.Models.Tokenization.Normalizers;
using LoKr.Models.Tokenization.Patterns;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Readers;

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
