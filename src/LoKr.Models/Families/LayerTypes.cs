using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>Which layers see all positions and which only those nearby: <c>layer_types</c>, or the rule that a family had before that key.</summary>
internal static class LayerTypes
{
    /// <summary>Key of the list.</summary>
    public const string Key = "layer_types";

    /// <summary>A layer that sees all positions.</summary>
    public const string Full = "full_attention";

    /// <summary>A layer that sees the positions in its window.</summary>
    public const string Sliding = "sliding_attention";

    /// <summary>Whether each layer has a window.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="layers">Number of layers.</param>
    /// <param name="otherwise">The rule where the configuration has no list.</param>
    public static bool[] AreSliding(ModelConfig config, int layers, Func<int, bool> otherwise)
    {
        IReadOnlyList<string> types = config.GetStrings(Key);
        if (types.Count == 0)
        {
            return [.. Enumerable.Range(0, layers).Select(otherwise)];
        }

        if (types.Count != layers)
        {
            throw config.Invalid(Key, $"names {types.Count} layers, but num_hidden_layers is {layers}");
        }

        return [.. types.Select(type => type switch
        {
            Full => false,
            Sliding => true,
            _ => throw config.Unsupported(Key, $"names '{type}'; {Full} and {Sliding} are supported"),
        })];
    }

    /// <summary>The pattern of which one full layer ends every group, or begins it; null where the layers follow none.</summary>
    /// <param name="sliding">Whether each layer has a window.</param>
    /// <param name="endsGroup">Whether the full layer is the last of its group, else the first.</param>
    public static int? FindPattern(IReadOnlyList<bool> sliding, bool endsGroup)
    {
        // The shortest pattern; without any full layer, one that is longer than the model.
        for (int size = 1; size <= sliding.Count + 1; size++)
        {
            if (sliding.Select((isSliding, layer) => isSliding == ((layer + (endsGroup ? 1 : 0)) % size != 0)).All(static same => same))
            {
                return size;
            }
        }

        return null;
    }
}

/// <summary>Which layers see only the last positions, by the rules of each family's configuration class.</summary>
internal static class SlidingWindow
{
    private const int Default = 4096;

    /// <summary>Mistral: all layers or none; a null switches the window off, a missing key does not.</summary>
    public static int?[] OfMistral(ModelConfig config, int layers) => [.. Enumerable.Repeat(Read(config), layers)];

    /// <summary>
    /// Qwen: no layer unless <c>use_sliding_window</c>; then those that <c>layer_types</c> names, or those from <c>max_window_layers</c> on.
    /// </summary>
    public static int?[] OfQwen(ModelConfig config, int layers) => OfSwitch(config, layers, layer => layer >= config.GetInt("max_window_layers", 28));

    /// <summary>No layer unless <c>use_sliding_window</c>; then those that <c>layer_types</c> names, or those of a rule.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="layers">Number of layers.</param>
    /// <param name="otherwise">The rule.</param>
    public static int?[] OfSwitch(ModelConfig config, int layers, Func<int, bool> otherwise)
    {
        int? window = config.GetBool("use_sliding_window", false) ? Read(config) : null;
        bool[] sliding = LayerTypes.AreSliding(config, layers, layer => window is not null && otherwise(layer));
        return window is null && sliding.Contains(true)
            ? throw config.Invalid(LayerTypes.Key, $"names {LayerTypes.Sliding}, but the sliding window is switched off")
            : [.. sliding.Select(isSliding => isSliding ? window : null)];
    }

    /// <summary>Layers of two kinds, of which one always has the window.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="sliding">Whether each layer has the window.</param>
    public static int?[] Of(ModelConfig config, IEnumerable<bool> sliding)
    {
        int window = config.GetSize("sliding_window", Default);
        return [.. sliding.Select(isSliding => isSliding ? (int?)window : null)];
    }

    private static int? Read(ModelConfig config) =>
        config.Contains("sliding_window") && !config.Has("sliding_window") ? null : config.GetSize("sliding_window", Default);
}
