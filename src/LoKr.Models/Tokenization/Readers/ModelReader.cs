using System.Text.Json;
using LoKr.Models.Tokenization.Cores;

namespace LoKr.Models.Tokenization.Readers;

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
