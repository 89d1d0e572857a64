using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>
/// OLMo 2 (OLMo Team, arXiv:2501.00656) and OLMo 3, <c>Olmo2ForCausalLM</c> and <c>Olmo3ForCausalLM</c> in transformers: Llama's layers with the
/// norms behind the blocks instead of before them, and queries and keys normalized over all heads. OLMo 3 has layers with a window.
/// </summary>
internal static class Olmo
{
    private static readonly (LayerPart Part, string Name)[] s_layer =
    [
        .. LlamaFamily.Attention,
        .. LlamaFamily.HeadNorms,
        .. LlamaFamily.Mlp,
        (LayerPart.AttentionOutputNorm, "post_attention_layernorm"),
        (LayerPart.MlpOutputNorm, "post_feedforward_layernorm"),
    ];

    private static readonly LlamaFamily s_olmo2 = new()
    {
        ModelType = "olmo2",
        ClassName = "Olmo2ForCausalLM",
        DefaultPositions = 2048,
        DefaultEosId = 50279,
        Layer = s_layer,
        NormsAllHeads = true,
        DefaultNormEpsilon = 1e-5,
        InputBias = static config => config.GetBool("attention_bias", false),
        OutputBias = static config => config.GetBool("attention_bias", false),
    };

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } =
    [
        .. s_olmo2.Register(),
        .. (s_olmo2 with
        {
            ModelType = "olmo3",
            ClassName = "Olmo3ForCausalLM",
            Windows = static (config, layers) => SlidingWindow.Of(config, AreSliding(config, layers)),
            Ropes = ReadRopes,
            WriteSpellings = static (json, stack) =>
            {
                ConfigSpellings.WriteLayerTypes(json, [.. stack.Windows.Select(static window => window is not null)]);
                ConfigSpellings.WriteLayerRopes(json, stack, "rope_theta", slidingKey: null, hasScaling: true);
            },
        }).Register(),
    ];

    private static bool[] AreSliding(ModelConfig config, int layers) => LayerTypes.AreSliding(config, layers, static layer => (layer + 1) % 4 != 0);

    private static IReadOnlyList<RopeSettings?> ReadRopes(ModelConfig config, int width, int positions, int layers)
    {
        RopeSettings full = new(config, width, positions, new() { LayerType = LayerTypes.Full, DefaultTheta = 500_000 });
        RopeSettings sliding = new(config, width, positions, new() { LayerType = LayerTypes.Sliding, DefaultTheta = 500_000, IsScaled = false });
        return [.. AreSliding(config, layers).Select(isSliding => isSliding ? sliding : full)];
    }
}
