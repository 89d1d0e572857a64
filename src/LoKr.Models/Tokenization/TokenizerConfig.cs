using System.Text.Json;
using LoKr.Core.IO;
using LoKr.Models.Tokenization.Models;

namespace LoKr.Models.Tokenization;

/// <summary>
/// The options in <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c> and <c>added_tokens.json</c>, with the precedence of
/// transformers: where the first file lists its added tokens, the other two are ignored.
/// </summary>
internal sealed class TokenizerConfig
{
    private readonly Dictionary<string, AddedToken?> _named = new(StringComparer.Ordinal);
    private readonly HashSet<string> _plain = new(StringComparer.Ordinal);
    private readonly List<AddedToken> _extra = [];
    private readonly SortedDictionary<int, AddedToken> _added = [];
    private bool _hasDecoder;

    /// <summary>Keys of special tokens, in the order in which transformers assigns their ids.</summary>
    public static IReadOnlyList<string> SpecialTokenNames { get; } =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

    /// <summary>Class name without "Fast", or null.</summary>
    public string? TokenizerClass { get; private set; }

    public int? ModelMaxLength { get; private set; }

    public bool? AddBos { get; private set; }

    public bool? AddEos { get; private set; }

    public bool? LowerCase { get; private set; }

    public bool? StripAccents { get; private set; }

    public bool? HandleChinese { get; private set; }

    public bool? AddPrefixSpace { get; private set; }

    public bool? Legacy { get; private set; }

    public bool CleanUpSpaces { get; private set; }

    public bool SplitSpecialTokens { get; private set; }

    /// <summary>Special tokens by key; null where the file sets the key to null.</summary>
    public IReadOnlyDictionary<string, AddedToken?> Named => _named;

    /// <summary>Special tokens without a role.</summary>
    public IReadOnlyList<AddedToken> ExtraSpecialTokens => _extra;

    /// <summary>Tokens of <c>added_tokens_decoder</c>, in the order of their ids; they override the options in tokenizer.json.</summary>
    public IEnumerable<AddedToken> AddedTokens => _hasDecoder ? _added.Values : [];

    /// <summary>Tokens of <c>added_tokens.json</c>, in the order of their ids; tokenizer.json overrides their options.</summary>
    public IEnumerable<AddedToken> LegacyAddedTokens => _hasDecoder ? [] : _added.Values;

    /// <summary>Whether a special token was given as plain text, without options.</summary>
    public bool IsPlain(string name) => _plain.Contains(name);

    public static TokenizerConfig Read(TokenizerFolder folder)
    {
        TokenizerConfig config = new();
        string path = folder.PathOf(TokenizerFolder.ConfigJson);
        if (File.Exists(path))
        {
            config.ReadConfig(TokenizerError.ReadJson(path));
        }

        if (!config._hasDecoder)
        {
            string map = folder.PathOf(TokenizerFolder.SpecialTokensMapJson);
            if (File.Exists(map))
            {
                config.ReadSpecialTokens(TokenizerError.ReadJson(map));
            }

            string added = folder.PathOf(TokenizerFolder.AddedTokensJson);
            if (File.Exists(added))
            {
                config.ReadAddedTokens(TokenizerError.ReadJson(added));
            }
        }

        return config;
    }

    /// <summary>Reads a token with its options.</summary>
    public static AddedToken ReadToken(JsonFields token, bool special) => new(
        token.GetString("content"),
        token.GetBool("single_word", false),
        token.GetBool("lstrip", false),
        token.GetBool("rstrip", false),
        token.GetBool("normalized", !special),
        special);

    private void ReadConfig(JsonFields json)
    {
        TokenizerClass = json.FindString("tokenizer_class");
        if (TokenizerClass?.EndsWith("Fast", StringComparison.Ordinal) == true)
        {
            TokenizerClass = TokenizerClass[..^4];
        }

        ModelMaxLength = ReadLength(json);
        AddBos = json.FindBool("add_bos_token");
        AddEos = json.FindBool("add_eos_token");
        LowerCase = json.FindBool("do_lower_case");
        StripAccents = json.FindBool("strip_accents");
        HandleChinese = json.FindBool("tokenize_chinese_chars");
        AddPrefixSpace = json.FindBool("add_prefix_space");
        Legacy = json.FindBool("legacy");
        CleanUpSpaces = json.GetBool("clean_up_tokenization_spaces", false);
        SplitSpecialTokens = json.GetBool("split_special_tokens", false);
        ReadSpecialTokens(json);
        if (json.FindObject("added_tokens_decoder") is JsonFields decoder)
        {
            _hasDecoder = true;
            foreach ((string key, JsonElement value) in decoder.Members)
            {
                if (!int.TryParse(key, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out int id))
                {
                    throw decoder.Invalid(key, "is not a token id");
                }

                JsonFields token = decoder.AsObject(value, key);
                _added[id] = ReadToken(token, token.GetBool("special", false)) with { StatedId = Vocabulary.CheckId(decoder, key, id) };
            }
        }
    }

    // Numbers such as 1e30 stand for "no limit".
    private static int? ReadLength(JsonFields json)
    {
        if (!json.Has("model_max_length"))
        {
            return null;
        }

        JsonElement value = json.Get("model_max_length");
        double length = value.ValueKind == JsonValueKind.Number ? value.GetDouble() : double.NaN;
        return length switch
        {
            >= 1 and <= int.MaxValue when Math.Floor(length) == length => (int)length,
            > int.MaxValue => null,
            _ => throw json.Wrong("model_max_length", "a positive whole number", value),
        };
    }

    private void ReadSpecialTokens(JsonFields json)
    {
        foreach (string name in SpecialTokenNames)
        {
            if (!json.Contains(name))
            {
                continue;
            }

            _plain.Remove(name);
            if (!json.Has(name))
            {
                _named[name] = null;
            }
            else if (json.Get(name).ValueKind == JsonValueKind.String)
            {
                _named[name] = new AddedToken(json.GetString(name));
                _plain.Add(name);
            }
            else
            {
                _named[name] = ReadToken(json.GetObject(name), special: true);
            }
        }

        foreach ((string key, JsonElement value) in json.Members)
        {
            if (key is "additional_special_tokens" or "extra_special_tokens" && value.ValueKind != JsonValueKind.Null)
            {
                ReadExtraTokens(json, key, value);
            }
            else if (key.EndsWith("_token", StringComparison.Ordinal) && value.ValueKind == JsonValueKind.String
                && !SpecialTokenNames.Contains(key))
            {
                // A model's own special token, such as image_token.
                _extra.Add(new AddedToken(json.AsString(value, key)));
            }
        }
    }

    private void ReadExtraTokens(JsonFields json, string key, JsonElement list)
    {
        IEnumerable<JsonElement> items = list.ValueKind switch
        {
            JsonValueKind.Array => list.EnumerateArray(),
            JsonValueKind.Object => list.EnumerateObject().Select(property => property.Value),
            _ => throw json.Wrong(key, "a list or an object", list),
        };
        foreach (JsonElement item in items)
        {
            _extra.Add(item.ValueKind == JsonValueKind.String
                ? new AddedToken(json.AsString(item, key))
                : ReadToken(json.AsObject(item, key), special: true));
        }
    }

    private void ReadAddedTokens(JsonFields json)
    {
        HashSet<string> special = [.. _named.Values.OfType<AddedToken>().Concat(_extra).Select(token => token.Content)];
        foreach ((string content, JsonElement value) in json.Members)
        {
            int id = Vocabulary.CheckId(json, content, json.AsIndex(value, content));
            bool isSpecial = special.Contains(content);
            _added[id] = new AddedToken(content, Normalized: !isSpecial, Special: isSpecial, StatedId: id);
        }
    }
}
