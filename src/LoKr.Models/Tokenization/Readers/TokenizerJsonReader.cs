using LoKr.Models.Tokenization.Cores;
using LoKr.Models.Tokenization.Decoders;
using LoKr.Models.Tokenization.PreTokenizers;
using Microsoft.ML.Tokenizers;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>
/// Reads a <c>tokenizer.json</c>. Its truncation and padding sections are left aside: transformers sets both at every call.
/// </summary>
internal static class TokenizerJsonReader
{
    public static TokenizerParts Read(string path, TokenizerConfig config)
    {
        JsonComponent json = JsonFile.Read(path);
        json.Allow("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model");
        if (json.OptionalText("version") is string version && version != "1.0")
        {
            throw json.Unsupported($"version {version} of the file format");
        }

        JsonComponent modelJson = json.Object("model");
        (ITokenModel model, string? suffix) = ModelReader.Read(modelJson);
        Normalizer? normalizer = json.OptionalObject("normalizer") is JsonComponent normalizerJson
            ? NormalizerReader.Read(normalizerJson, config)
            : null;
        List<IPieceStep> steps = [];
        if (json.OptionalObject("pre_tokenizer") is JsonComponent preTokenizer)
        {
            PreTokenizerReader.Read(preTokenizer, config, steps);
        }

        ITokenDecoder? decoder = json.OptionalObject("decoder") is JsonComponent decoderJson ? DecoderReader.Read(decoderJson) : null;
        if (config.TokenizerClass == "CLIPTokenizer" && suffix is not null && decoder is not null)
        {
            decoder = ClipDecoder.Around(decoder, suffix);
        }

        return new TokenizerParts
        {
            File = path,
            Model = model,
            Normalizer = normalizer,
            Steps = steps,
            Decoder = decoder,
            AddedTokens = json.Has("added_tokens") ? [.. json.Objects("added_tokens").Select(ReadToken)] : [],
            Template = json.OptionalObject("post_processor") is JsonComponent processor ? TemplateReader.Read(processor) : null,
            AllowsCleanUp = model is not BpeModel,
        };
    }

    private static AddedToken ReadToken(JsonComponent token)
    {
        token.Allow("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special");
        return TokenizerConfig.ReadToken(token, token.Flag("special", fallback: false)) with { StatedId = token.Number("id") };
    }

    /// <summary>A vocabulary written as an object.</summary>
    public static Vocabulary ReadVocabulary(JsonComponent owner, JsonComponent json)
    {
        Dictionary<string, int> ids = new(StringComparer.Ordinal);
        foreach (JsonEntry property in json.Properties)
        {
            ids[property.Name] = owner.AsNumber(property.Value, property.Name);
        }

        return ids.Count > 0 ? new Vocabulary(ids) : throw owner.Invalid("has an empty vocabulary");
    }
}
