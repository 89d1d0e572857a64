using System.Text.Json;
using LoKr.Core.IO;
using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>
/// Reads a <c>tokenizer.json</c>. Its truncation and padding sections are ignored: transformers sets both at every call.
/// </summary>
internal static class TokenizerJsonReader
{
    public static TokenizerParts Read(string path, TokenizerConfig config)
    {
        JsonFields json = TokenizerError.ReadJson(path);
        json.AllowOnly("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model");
        if (json.FindString("version") is string version && version != "1.0")
        {
            throw json.Unsupported("version");
        }

        JsonFields modelJson = json.GetObject("model");
        (ITokenModel model, string? suffix) = ModelReader.Read(modelJson);
        Normalizer? normalizer = json.FindObject("normalizer") is JsonFields normalizerJson
            ? NormalizerReader.Read(normalizerJson, config)
            : null;
        List<IPreTokenizer> steps = [];
        if (json.FindObject("pre_tokenizer") is JsonFields preTokenizer)
        {
            PreTokenizerReader.Read(preTokenizer, config, steps);
        }

        ITokenDecoder? decoder = json.FindObject("decoder") is JsonFields decoderJson ? DecoderReader.Read(decoderJson) : null;
        if (config.TokenizerClass == "CLIPTokenizer" && suffix is not null && decoder is not null)
        {
            decoder = ClipDecoder.Around(decoder, suffix);
        }

        return new TokenizerParts
        {
            File = path,
            Model = model,
            Normalizer = normalizer,
            PreTokenizers = steps,
            Decoder = decoder,
            AddedTokens = json.Has("added_tokens") ? [.. json.GetObjects("added_tokens").Select(ReadToken)] : [],
            Template = json.FindObject("post_processor") is JsonFields processor ? TemplateReader.Read(processor) : null,
            AllowsCleanUp = model is not BpeModel,
        };
    }

    private static AddedToken ReadToken(JsonFields token)
    {
        token.AllowOnly("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special");
        return TokenizerConfig.ReadToken(token, token.GetBool("special", false)) with { StatedId = Vocabulary.CheckId(token, "id", token.GetIndex("id")) };
    }

    /// <summary>Reads a vocabulary, an object of ids by token.</summary>
    public static Vocabulary ReadVocabulary(JsonFields json)
    {
        Dictionary<string, int> ids = new(StringComparer.Ordinal);
        foreach ((string token, JsonElement value) in json.Members)
        {
            ids[token] = Vocabulary.CheckId(json, token, json.AsIndex(value, token));
        }

        return ids.Count > 0 ? new Vocabulary(ids) : throw json.Invalid("holds no tokens");
    }
}

/// <summary>Reads the model of a tokenizer.json: WordPiece or BPE.</summary>
internal static class ModelReader
{
    public static (ITokenModel Model, string? EndOfWordSuffix) Read(JsonFields json)
    {
        // Files of old releases lack the type; only BPE has merges, only WordPiece a longest word.
        string type = json.FindString("type")
            ?? (json.Has("merges") ? "BPE" : json.Has("max_input_chars_per_word") ? "WordPiece" : throw json.Invalid("type", "is missing"));
        switch (type)
        {
            case "WordPiece":
                json.AllowOnly("type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab");
                return (new WordPieceModel(
                    Vocabulary(json), json.GetString("unk_token"), json.GetString("continuing_subword_prefix"), json.GetIndex("max_input_chars_per_word"), json.Source), null);
            case "BPE":
                return Bpe(json);
            default:
                throw json.Unsupported("type");
        }
    }

    private static (ITokenModel Model, string? EndOfWordSuffix) Bpe(JsonFields json)
    {
        json.AllowOnly(
            "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges");
        if (json.Has("dropout") && json.Get("dropout") is var dropout && !(dropout.ValueKind == JsonValueKind.Number && dropout.GetDouble() == 0))
        {
            throw json.Unsupported("dropout", "is not 0; dropout of merges, which makes the tokens of a text random, is not supported");
        }

        BpeSettings settings = new()
        {
            Vocabulary = Vocabulary(json),
            Merges = Merges(json),
            UnknownToken = json.FindString("unk_token"),
            ContinuingPrefix = json.FindString("continuing_subword_prefix") ?? "",
            EndOfWordSuffix = json.FindString("end_of_word_suffix") ?? "",
            FuseUnknown = json.GetBool("fuse_unk", false),
            ByteFallback = json.GetBool("byte_fallback", false),
            IgnoreMerges = json.GetBool("ignore_merges", false),
        };
        return (new BpeModel(settings, json.Source), settings.EndOfWordSuffix.Length == 0 ? null : settings.EndOfWordSuffix);
    }

    private static Vocabulary Vocabulary(JsonFields json) => TokenizerJsonReader.ReadVocabulary(json.GetObject("vocab"));

    private static List<(string Left, string Right)> Merges(JsonFields json)
    {
        JsonElement array = json.GetArray("merges");
        List<(string, string)> merges = new(array.GetArrayLength());
        foreach (JsonElement item in array.EnumerateArray())
        {
            // Written "a b" by old releases, ["a", "b"] by new ones.
            string[] pair = item.ValueKind == JsonValueKind.Array
                ? [.. item.EnumerateArray().Select(part => json.AsString(part, "merges"))]
                : json.AsString(item, "merges").Split(' ');
            if (pair.Length != 2)
            {
                throw json.Invalid("merges", $"has the entry {item.GetRawText()}, which is not a pair");
            }

            merges.Add((pair[0], pair[1]));
        }

        return merges;
    }
}

/// <summary>Reads the post-processor of a tokenizer.json as the ids around a single text.</summary>
internal static class TemplateReader
{
    public static SpecialTokenTemplate Read(JsonFields json)
    {
        switch (json.GetString("type"))
        {
            case "Sequence":
                json.AllowOnly("type", "processors");
                return json.GetObjects("processors").Select(Read).Aggregate(SpecialTokenTemplate.Empty, (inner, outer) => inner.Inside(outer));
            case "ByteLevel":
                // Concerns offsets only.
                json.AllowOnly("type", "add_prefix_space", "trim_offsets", "use_regex");
                return SpecialTokenTemplate.Empty;
            case "RobertaProcessing":
                json.AllowOnly("type", "sep", "cls", "trim_offsets", "add_prefix_space");
                return new SpecialTokenTemplate([Pair(json, "cls")], [Pair(json, "sep")]);
            case "BertProcessing":
                json.AllowOnly("type", "sep", "cls");
                return new SpecialTokenTemplate([Pair(json, "cls")], [Pair(json, "sep")]);
            case "TemplateProcessing":
                json.AllowOnly("type", "single", "pair", "special_tokens");
                return Template(json);
            default:
                throw json.Unsupported("type");
        }
    }

    private static int Pair(JsonFields json, string key)
    {
        JsonElement pair = json.Get(key);
        return pair.ValueKind == JsonValueKind.Array && pair.GetArrayLength() == 2
            ? json.AsIndex(pair[1], key)
            : throw json.Wrong(key, "a pair of a token and its id", pair);
    }

    private static SpecialTokenTemplate Template(JsonFields json)
    {
        Dictionary<string, int[]> ids = [];
        if (json.FindObject("special_tokens") is JsonFields tokens)
        {
            foreach ((string name, JsonElement value) in tokens.Members)
            {
                JsonFields token = tokens.AsObject(value, name).AllowOnly("id", "ids", "tokens");
                ids[name] = [.. token.GetArray("ids").EnumerateArray().Select(id => token.AsIndex(id, "ids"))];
            }
        }

        List<int> before = [];
        List<int> after = [];
        int sequences = 0;
        foreach (JsonFields piece in json.GetObjects("single"))
        {
            piece.AllowOnly("SpecialToken", "Sequence");
            if (piece.FindObject("Sequence") is JsonFields sequence)
            {
                sequences += sequence.GetString("id") == "A" ? 1 : throw sequence.Unsupported("id", "needs a second text, which is not supported");
                continue;
            }

            string name = piece.GetObject("SpecialToken").GetString("id");
            (sequences == 0 ? before : after).AddRange(
                ids.TryGetValue(name, out int[]? own) ? own : throw json.Invalid("special_tokens", $"does not list the token '{name}', which the template uses"));
        }

        return sequences == 1
            ? new SpecialTokenTemplate(before, after)
            : throw json.Unsupported("single", "does not hold the text exactly once");
    }
}
