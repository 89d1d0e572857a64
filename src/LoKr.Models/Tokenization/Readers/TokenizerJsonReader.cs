using System.Text.Json;
using LoKr.Models.Tokenization.Models;

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

/// <summary>Reads the model of a tokenizer.json: WordPiece or BPE.</summary>
internal static class ModelReader
{
    public static (ITokenModel Model, string? EndOfWordSuffix) Read(JsonComponent json)
    {
        // Files of old releases have no type; only BPE has merges, only WordPiece a longest word.
        string type = json.OptionalText("type")
            ?? (json.Has("merges") ? "BPE" : json.Has("max_input_chars_per_word") ? "WordPiece" : throw json.Invalid("lacks 'type'"));
        switch (type)
        {
            case "WordPiece":
                json.Allow("unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab");
                return (new WordPieceModel(
                    Vocabulary(json), json.Text("unk_token"), json.Text("continuing_subword_prefix"), json.Number("max_input_chars_per_word"), json.File), null);
            case "BPE":
                return Bpe(json);
            default:
                throw json.Unsupported($"the model '{type}'");
        }
    }

    private static (ITokenModel Model, string? EndOfWordSuffix) Bpe(JsonComponent json)
    {
        json.Allow(
            "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges");
        if (json.Has("dropout") && json.Get("dropout") is var dropout && !(dropout.ValueKind == JsonValueKind.Number && dropout.GetDouble() == 0))
        {
            throw json.Unsupported("dropout of merges, which makes the tokens of a text random");
        }

        BpeSettings settings = new()
        {
            Vocabulary = Vocabulary(json),
            Merges = Merges(json),
            UnknownToken = json.OptionalText("unk_token"),
            ContinuingPrefix = json.OptionalText("continuing_subword_prefix") ?? "",
            EndOfWordSuffix = json.OptionalText("end_of_word_suffix") ?? "",
            FuseUnknown = json.Flag("fuse_unk", fallback: false),
            ByteFallback = json.Flag("byte_fallback", fallback: false),
            IgnoreMerges = json.Flag("ignore_merges", fallback: false),
        };
        return (new BpeModel(settings, json.File), settings.EndOfWordSuffix.Length == 0 ? null : settings.EndOfWordSuffix);
    }

    private static Vocabulary Vocabulary(JsonComponent json) => TokenizerJsonReader.ReadVocabulary(json, json.Object("vocab"));

    private static List<(string Left, string Right)> Merges(JsonComponent json)
    {
        JsonElement array = json.Get("merges");
        if (array.ValueKind != JsonValueKind.Array)
        {
            throw json.Invalid("has 'merges' that are no list");
        }

        List<(string, string)> merges = new(array.GetArrayLength());
        foreach (JsonElement item in array.EnumerateArray())
        {
            // Written "a b" by old releases, ["a", "b"] by new ones.
            string[] pair = item.ValueKind == JsonValueKind.Array
                ? [.. item.EnumerateArray().Select(part => json.AsText(part, "merges"))]
                : json.AsText(item, "merges").Split(' ');
            if (pair.Length != 2)
            {
                throw json.Invalid($"has the merge {item.GetRawText()}, which is no pair");
            }

            merges.Add((pair[0], pair[1]));
        }

        return merges;
    }
}

/// <summary>Reads the post-processor of a tokenizer.json as the ids around a single text.</summary>
internal static class TemplateReader
{
    public static SpecialTokenTemplate Read(JsonComponent json)
    {
        switch (json.Type)
        {
            case "Sequence":
                json.Allow("processors");
                return json.Objects("processors").Select(Read).Aggregate(SpecialTokenTemplate.Empty, (inner, outer) => inner.Inside(outer));
            case "ByteLevel":
                // Concerns offsets only.
                json.Allow("add_prefix_space", "trim_offsets", "use_regex");
                return SpecialTokenTemplate.Empty;
            case "RobertaProcessing":
                json.Allow("sep", "cls", "trim_offsets", "add_prefix_space");
                return new SpecialTokenTemplate([Pair(json, "cls")], [Pair(json, "sep")]);
            case "BertProcessing":
                json.Allow("sep", "cls");
                return new SpecialTokenTemplate([Pair(json, "cls")], [Pair(json, "sep")]);
            case "TemplateProcessing":
                json.Allow("single", "pair", "special_tokens");
                return Template(json);
            default:
                throw json.UnsupportedType();
        }
    }

    private static int Pair(JsonComponent json, string key)
    {
        JsonElement pair = json.Get(key);
        return pair.ValueKind == JsonValueKind.Array && pair.GetArrayLength() == 2
            ? json.AsNumber(pair[1], key)
            : throw json.Invalid($"has a '{key}' that is no pair of a token and its id");
    }

    private static SpecialTokenTemplate Template(JsonComponent json)
    {
        Dictionary<string, int[]> ids = [];
        if (json.OptionalObject("special_tokens") is JsonComponent tokens)
        {
            foreach (JsonEntry property in tokens.Properties)
            {
                JsonComponent token = tokens.Object(property.Name).Allow("id", "ids", "tokens");
                ids[property.Name] = [.. token.Get("ids").EnumerateArray().Select(id => token.AsNumber(id, "ids"))];
            }
        }

        List<int> before = [];
        List<int> after = [];
        int sequences = 0;
        foreach (JsonComponent piece in json.Objects("single"))
        {
            piece.Allow("SpecialToken", "Sequence");
            if (piece.OptionalObject("Sequence") is JsonComponent sequence)
            {
                sequences += sequence.Text("id") == "A" ? 1 : throw json.Unsupported("a template that needs a second text");
                continue;
            }

            string name = piece.Object("SpecialToken").Text("id");
            (sequences == 0 ? before : after).AddRange(
                ids.TryGetValue(name, out int[]? own) ? own : throw json.Invalid($"uses the special token '{name}' without saying its id"));
        }

        return sequences == 1
            ? new SpecialTokenTemplate(before, after)
            : throw json.Unsupported("a template in which the text does not stand exactly once");
    }
}
