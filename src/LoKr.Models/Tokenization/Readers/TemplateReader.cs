using System.Text.Json;

namespace LoKr.Models.Tokenization.Readers;

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
