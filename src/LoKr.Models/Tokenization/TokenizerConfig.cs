using System.Text.Json;
using LoKr.Models.Tokenization.Readers;

namespace LoKr.Models.Tokenization;

/// <summary>
/// What <c>tokenizer_config.json</c>, <c>special_tokens_map.json</c> and <c>added_tokens.json</c> say; with the precedence of
/// transformers: where the first lists its added tokens, the other two are leftovers and not read.
/// </summary>
internal sealed class TokenizerConfig
{
    private readonly Dictionary<string, AddedToken?> _named = new(StringComparer.Ordinal);
    private readonly HashSet<string> _plain = new(StringComparer.Ordinal);
    private readonly List<AddedToken> _extra = [];
    private readonly SortedDictionary<int, AddedToken> _added = [];
    private bool _hasDecoder;

    /// <summary>Keys of special tokens, in the order in which transformers gives them ids.</summary>
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

    /// <summary>Special tokens by key; null where the file says that there is none.</summary>
    public IReadOnlyDictionary<string, AddedToken?> Named => _named;

    /// <summary>Special tokens without a role.</summary>
    public IReadOnlyList<AddedToken> ExtraSpecialTokens => _extra;

    /// <summary>Tokens of <c>added_tokens_decoder</c>, in the order of their ids; they overrule the options in tokenizer.json.</summary>
    public IEnumerable<AddedToken> AddedTokens => _hasDecoder ? _added.Values : [];

    /// <summary>Tokens of <c>added_tokens.json</c>, in the order of their ids; tokenizer.json overrules their options.</summary>
    public IEnumerable<AddedToken> LegacyAddedTokens => _hasDecoder ? [] : _added.Values;

    /// <summary>Whether a special token was given as plain text, without options.</summary>
    public bool IsPlain(string name) => _plain.Contains(name);

    public static TokenizerConfig Read(TokenizerFolder folder)
    {
        TokenizerConfig config = new();
        string path = folder.PathOf(TokenizerFolder.ConfigJson);
        if (File.Exists(path))
        {
            config.ReadConfig(JsonFile.Read(path));
        }

        if (!config._hasDecoder)
        {
            string map = folder.PathOf(TokenizerFolder.SpecialTokensMapJson);
            if (File.Exists(map))
            {
                config.ReadSpecialTokens(JsonFile.Read(map));
            }

            string added = folder.PathOf(TokenizerFolder.AddedTokensJson);
            if (File.Exists(added))
            {
                config.ReadAddedTokens(JsonFile.Read(added));
            }
        }

        return config;
    }

    /// <summary>Reads one token that is written with its options.</summary>
    public static AddedToken ReadToken(JsonComponent token, bool special) => new(
        token.Text("content"),
        token.Flag("single_word", fallback: false),
        token.Flag("lstrip", fallback: false),
        token.Flag("rstrip", fallback: false),
        token.Flag("normalized", fallback: !special),
        special);

    private void ReadConfig(JsonComponent json)
    {
        TokenizerClass = json.OptionalText("tokenizer_class");
        if (TokenizerClass?.EndsWith("Fast", StringComparison.Ordinal) == true)
        {
            TokenizerClass = TokenizerClass[..^4];
        }

        ModelMaxLength = ReadLength(json);
        AddBos = json.OptionalFlag("add_bos_token");
        AddEos = json.OptionalFlag("add_eos_token");
        LowerCase = json.OptionalFlag("do_lower_case");
        StripAccents = json.OptionalFlag("strip_accents");
        HandleChinese = json.OptionalFlag("tokenize_chinese_chars");
        AddPrefixSpace = json.OptionalFlag("add_prefix_space");
        Legacy = json.OptionalFlag("legacy");
        CleanUpSpaces = json.Flag("clean_up_tokenization_spaces", fallback: false);
        SplitSpecialTokens = json.Flag("split_special_tokens", fallback: false);
        ReadSpecialTokens(json);
        if (json.OptionalObject("added_tokens_decoder") is JsonComponent decoder)
        {
            _hasDecoder = true;
            foreach (JsonEntry property in decoder.Properties)
            {
                if (!int.TryParse(property.Name, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out int id))
                {
                    throw decoder.Invalid($"has the key '{property.Name}', which is no id");
                }

                JsonComponent token = decoder.Object(property.Name);
                _added[id] = ReadToken(token, token.Flag("special", fallback: false)) with { StatedId = id };
            }
        }
    }

    // Numbers such as 1e30 stand for "no limit".
    private static int? ReadLength(JsonComponent json)
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
            _ => throw json.Invalid($"has the model_max_length {value.GetRawText()}"),
        };
    }

    private void ReadSpecialTokens(JsonComponent json)
    {
        foreach (string name in SpecialTokenNames)
        {
            if (!json.Names(name))
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
                _named[name] = new AddedToken(json.Text(name));
                _plain.Add(name);
            }
            else
            {
                _named[name] = ReadToken(json.Object(name), special: true);
            }
        }

        foreach (JsonEntry property in json.Properties)
        {
            if (property.Name is "additional_special_tokens" or "extra_special_tokens" && json.Has(property.Name))
            {
                ReadExtraTokens(json, property.Name);
            }
            else if (property.Name.EndsWith("_token", StringComparison.Ordinal) && property.Value.ValueKind == JsonValueKind.String
                && !SpecialTokenNames.Contains(property.Name))
            {
                // A model's own special token, such as image_token.
                _extra.Add(new AddedToken(json.Text(property.Name)));
            }
        }
    }

    private void ReadExtraTokens(JsonComponent json, string key)
    {
        JsonElement list = json.Get(key);
        IEnumerable<JsonElement> items = list.ValueKind switch
        {
            JsonValueKind.Array => list.EnumerateArray(),
            JsonValueKind.Object => list.EnumerateObject().Select(property => property.Value),
            _ => throw json.Invalid($"has a '{key}' that is no list"),
        };
        foreach (JsonElement item in items)
        {
            _extra.Add(item.ValueKind == JsonValueKind.String
                ? new AddedToken(json.AsText(item, key))
                : ReadToken(new JsonComponent(json.File, $"{json.Place}.{key}", item), special: true));
        }
    }

    private void ReadAddedTokens(JsonComponent json)
    {
        HashSet<string> special = [.. _named.Values.OfType<AddedToken>().Concat(_extra).Select(token => token.Content)];
        foreach (JsonEntry property in json.Properties)
        {
            int id = json.AsNumber(property.Value, property.Name);
            bool isSpecial = special.Contains(property.Name);
            _added[id] = new AddedToken(property.Name, Normalized: !isSpecial, Special: isSpecial, StatedId: id);
        }
    }
}
