namespace LoKr.Core.Training.Data;

/// <summary>One row of data.</summary>
/// <param name="Fields">Values by name: string, long, double, bool, null, or a <see cref="System.Text.Json.JsonElement"/> for nested JSON.</param>
/// <param name="Origin">Where it came from, for messages, for example <c>tickets.jsonl:12</c>.</param>
public sealed record DataRow(IReadOnlyDictionary<string, object?> Fields, string Origin);
