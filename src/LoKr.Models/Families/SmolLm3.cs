using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>SmolLM3 (Hugging Face, 2025), <c>SmolLM3ForCausalLM</c> in transformers: Llama whose every fourth layer has no positions.</summary>
internal static class SmolLm3
{
    private const string Key = "no_rope_layers";

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = new LlamaFamily
    {
        ModelType = "smollm3",
        ClassName = "SmolLM3ForCausalLM",
        ClassifierName = "SmolLM3ForSequenceClassification",
        TokenClassifierName = "SmolLM3ForTokenClassification",
        DefaultPositions = 32768,
        DefaultKeyHeads = 4,
        DefaultEosId = 128001,
        IsTiedByDefault = true,
        InputBias = static config => config.GetBool("attention_bias", false),
        OutputBias = static config => config.GetBool("attention_bias", false),
        MlpBias = static config => config.GetBool("mlp_bias", false),

        // Where layer_types is missing, the layers without positions are those with a window.
        Windows = static (config, layers) => SlidingWindow.OfSwitch(config, layers, AreWithoutPositions(config, layers).ElementAt),
        Ropes = static (config, width, positions, layers) =>
        {
            RopeSettings rope = new(config, width, positions, new() { DefaultTheta = 2_000_000 });
            bool[] without = AreWithoutPositions(config, layers);
            return without.Contains(false)
                ? [.. without.Select(isWithout => isWithout ? null : rope)]
                : throw config.Unsupported(Key, "leaves no layer with positions");
        },
    }.Register();

    // The list has 1 for a layer that rotates.
    private static bool[] AreWithoutPositions(ModelConfig config, int layers)
    {
        if (!config.Has(Key))
        {
            int interval = config.GetSize("no_rope_layer_interval", 4);
            return [.. Enumerable.Range(1, layers).Select(number => number % interval == 0)];
        }

        IReadOnlyList<int> rotates = config.GetInts(Key);
        return rotates.Count == layers
            ? [.. rotates.Select(static value => value == 0)]
            : throw config.Invalid(Key, $"has {rotates.Count} values, but num_hidden_layers is {layers}");
    }
}
