using System.Text.Json;
using System.Text.Json.Serialization;

namespace LoKr.Models.Tests.Tokenization;

/// <summary>One row of a tokenizer_cases.json.</summary>
internal sealed record TokenizerCase(
    [property: JsonPropertyName("text")] string Text,
    [property: JsonPropertyName("ids")] int[] Ids,
    [property: JsonPropertyName("decoded")] string? Decoded)
{
    public static TokenizerCase[] Read(string path) => JsonSerializer.Deserialize<TokenizerCase[]>(File.ReadAllText(path))!;
}
