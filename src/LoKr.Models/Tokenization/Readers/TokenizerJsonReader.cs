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
            decoder = TokenDecoders.Clip(decoder, suffix);
        }

        JsonFields? processor = json.FindObject("post_processor");
        return new TokenizerParts
        {
            File = path,
            Model = model,
            Normalizer = normalizer,
            PreTokenizers = steps,
            Decoder = decoder,
            AddedTokens = json.Has("added_tokens") ? [.. json.GetObjects("added_tokens").Select(ReadToken)] : [],
            Template = processor is null ? null : TemplateReader.Read(processor),
            Trimming = processor is null ? null : TemplateReader.Trimming(processor),
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

/// <summary>Reads the model of a tokenizer.json: WordPiece, BPE or Unigram.</summary>
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
            case "Unigram":
                return (Unigram(json), null);
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

    private static UnigramModel Unigram(JsonFields json)
    {
        json.AllowOnly("type", "unk_id", "vocab", "byte_fallback");
        List<UnigramPiece> pieces = [];
        foreach (JsonElement item in json.GetArray("vocab").EnumerateArray())
        {
            if (item.ValueKind != JsonValueKind.Array || item.GetArrayLength() != 2 || item[1].ValueKind != JsonValueKind.Number)
            {
                throw json.Invalid("vocab", $"has the entry {item.GetRawText()}, which is not a token and its score");
            }

            pieces.Add(new UnigramPiece(json.AsString(item[0], "vocab"), pieces.Count, item[1].GetDouble()));
        }

        int? unknown = json.Has("unk_id") ? json.GetIndex("unk_id") : null;
        if (pieces.Count == 0 || unknown >= pieces.Count)
        {
            throw json.Invalid(pieces.Count == 0 ? "vocab" : "unk_id", pieces.Count == 0 ? "holds no tokens" : "is not the number of a token");
        }

        Dictionary<string, int> ids = new(StringComparer.Ordinal);
        foreach (UnigramPiece piece in pieces)
        {
            ids[piece.Text] = piece.Id;
        }

        UnigramSettings settings = new()
        {
            Vocabulary = new Vocabulary(ids),
            Pieces = pieces,
            LowestScore = pieces.Min(piece => piece.Score),
            UnknownId = unknown,
            ByteFallback = json.GetBool("byte_fallback", false),
        };
        return new UnigramModel(settings, json.Source);
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

/// <summary>Reads the post-processor of a tokenizer.json: the special tokens around texts, and whether places leave out spaces.</summary>
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
                return SpecialTokenTemplate.Around([Pair(json, "cls")], [Pair(json, "sep")], [Pair(json, "sep"), Pair(json, "sep")], secondType: 0);
            case "BertProcessing":
                json.AllowOnly("type", "sep", "cls");
                return SpecialTokenTemplate.Around([Pair(json, "cls")], [Pair(json, "sep")], [Pair(json, "sep")], secondType: 1);
            case "TemplateProcessing":
                json.AllowOnly("type", "single", "pair", "special_tokens");
                return Template(json);
            default:
                throw json.Unsupported("type");
        }
    }

    /// <summary>Whether the places of tokens leave out spaces: the last processor that has a say decides.</summary>
    public static SpaceTrimming? Trimming(JsonFields json) => json.GetString("type") switch
    {
        "Sequence" => json.GetObjects("processors").Select(Trimming).LastOrDefault(trimming => trimming is not null),
        "ByteLevel" or "RobertaProcessing" when json.GetBool("trim_offsets", true) => new SpaceTrimming(json.GetBool("add_prefix_space", true)),
        _ => null,
    };

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

        // Old files may lack the template of a pair.
        List<TemplatePart> pair = json.Has("pair") ? Parts(json, "pair", ids) : [];
        return new SpecialTokenTemplate(
            Parts(json, "single", ids) is var single && Texts(single) is [0] ? single : throw json.Unsupported("single", "does not hold the text exactly once"),
            Texts(pair) is [0, 1] or [1, 0] ? pair
                : pair.Count == 0 ? null
                : throw json.Unsupported("pair", "does not hold each of the two texts exactly once"));
    }

    private static int Type(JsonFields part) => part.Has("type_id") ? part.GetIndex("type_id") : 0;

    private static int[] Texts(List<TemplatePart> parts) => [.. parts.Where(part => part.Id is null).Select(part => part.Text)];

    private static List<TemplatePart> Parts(JsonFields json, string key, Dictionary<string, int[]> ids)
    {
        List<TemplatePart> parts = [];
        foreach (JsonFields piece in json.GetObjects(key))
        {
            piece.AllowOnly("SpecialToken", "Sequence");
            if (piece.FindObject("Sequence") is JsonFields sequence)
            {
                string id = sequence.GetString("id");
                parts.Add(TemplatePart.Of(
                    id == "A" ? 0 : id == "B" && key == "pair" ? 1 : throw sequence.Unsupported("id", "needs a second text, which is not supported"), Type(sequence)));
                continue;
            }

            JsonFields special = piece.GetObject("SpecialToken");
            string name = special.GetString("id");
            int[] own = ids.TryGetValue(name, out int[]? known)
                ? known
                : throw json.Invalid("special_tokens", $"does not list the token '{name}', which the template uses");
            int type = Type(special);
            parts.AddRange(own.Select(id => TemplatePart.Special(id, type)));
        }

        return parts;
    }
}
