namespace LoKr.Models.Llama;

/// <summary>Which layers see only the last positions, by the rules of each family's configuration class.</summary>
internal static class SlidingWindow
{
    private const int Default = 4096;

    /// <summary>Mistral: all layers or none; a null switches the window off, a missing key does not.</summary>
    public static int?[] OfMistral(ModelConfig config, int layers) => [.. Enumerable.Repeat(Read(config), layers)];

    /// <summary>
    /// Qwen: no layer unless <c>use_sliding_window</c>; then those that <c>layer_types</c> names, or those from <c>max_window_layers</c> on.
    /// </summary>
    public static int?[] OfQwen(ModelConfig config, int layers)
    {
        int? window = config.GetBool("use_sliding_window", false) ? Read(config) : null;
        IReadOnlyList<string> types = config.GetStrings("layer_types");
        if (types.Count == 0)
        {
            int first = config.GetInt("max_window_layers", 28)!.Value;
            return [.. Enumerable.Range(0, layers).Select(layer => layer >= first ? window : null)];
        }

        if (types.Count != layers)
        {
            throw config.Invalid("layer_types", $"names {types.Count} layers, but num_hidden_layers is {layers}");
        }

        return [.. types.Select(type => type switch
        {
            "full_attention" => (int?)null,
            "sliding_attention" => window ?? throw config.Invalid("layer_types", "names sliding_attention, but the sliding window is switched off"),
            _ => throw config.Unsupported("layer_types", $"names '{type}'; only full_attention and sliding_attention are built"),
        })];
    }

    private static int? Read(ModelConfig config) =>
        config.Json.ContainsKey("sliding_window") && !config.Has("sliding_window") ? null : config.GetSize("sliding_window", Default);
}
