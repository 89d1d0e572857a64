using System.Text.Json;

namespace LoKr.Models.Tokenization.Readers;

/// <summary>A key of a JSON object and its value.</summary>
internal readonly record struct JsonEntry(string Name, JsonElement Value);
