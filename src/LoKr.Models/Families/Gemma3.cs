using LoKr.Core.Configuration;

namespace LoKr.Models.Families;

/// <summary>
/// The text part of Gemma 3 (Gemma Team, arXiv:2503.19786), <c>Gemma3ForCausalLM</c> in transformers: Llama's layers with a second norm behind
/// each block, norms with the factor 1 + weight, scaled embeddings, and mostly layers with a window, which have rotary positions of their own.
/// </summary>
internal static class Gemma3
{
    private const string PatternKey = "sliding_window_pattern";
    private const string LocalThetaKey = "rope_local_base_freq";

    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = new LlamaFamily
    {
        ModelType = "gemma3_text",
        ClassName = "Gemma3ForCausalLM",
        ClassifierName = "Gemma3TextForSequenceClassification",
        DefaultPositions = 131072,
        DefaultKeyHeads = 4,
        DefaultHeadWidth = 256,
        DefaultEosId = 1,
        IsTiedByDefault = true,
        Layer =
        [
            .. LlamaFamily.Attention,
            .. LlamaFamily.HeadNorms,
            .. LlamaFamily.Mlp,
            (LayerPart.AttentionInputNorm, "input_layernorm"),
            (LayerPart.AttentionOutputNorm, "post_attention_layernorm"),
            (LayerPart.MlpInputNorm, "pre_feedforward_layernorm"),
            (LayerPart.MlpOutputNorm, "post_feedforward_layernorm"),
        ],
        ActivationKey = "hidden_activation",
        DefaultActivation = "gelu_pytorch_tanh",
        Norm = NormKind.RootMeanSquareOnePlus,
        InputBias = static config => config.GetBool("attention_bias", false),
        OutputBias = static config => config.GetBool("attention_bias", false),
        EmbeddingScale = static config => Math.Sqrt(config.GetSize("hidden_size")),
        AttentionScale = static config => 1 / Math.Sqrt(config.GetSize("query_pre_attn_scalar", 256)),
        LogitCap = static config => config.FindDouble("final_logit_softcapping"),
        Windows = static (config, layers) => SlidingWindow.Of(config, AreSliding(config, layers)),
        Ropes = ReadRopes,
        WriteSpellings = static (json, stack) =>
        {
            bool[] sliding = [.. stack.Windows.Select(static window => window is not null)];
            ConfigSpellings.WriteLayerTypes(json, sliding, PatternKey);
            ConfigSpellings.WriteLayerRopes(json, stack, "rope_theta", LocalThetaKey, hasScaling: true);
        },

        // attn_logit_softcapping is Gemma 2's: transformers reads it here and does not use it.
        Check = static config =>
        {
            if (config.GetBool("use_bidirectional_attention", false))
            {
                throw config.Unsupported("use_bidirectional_attention", "is true, which makes the decoder an encoder");
            }
        },
    }.Register();

    private static bool[] AreSliding(ModelConfig config, int layers)
    {
        int pattern = config.GetSize(PatternKey, 6);
        return LayerTypes.AreSliding(config, layers, layer => (layer + 1) % pattern != 0);
    }

    private static IReadOnlyList<RopeSettings?> ReadRopes(ModelConfig config, int width, int positions, int layers)
    {
        RopeSettings full = new(config, width, positions, new() { LayerType = LayerTypes.Full, DefaultTheta = 1_000_000 });
        RopeSettings sliding = new(config, width, positions, new() { LayerType = LayerTypes.Sliding, ThetaKey = LocalThetaKey, IsScaled = false });
        return [.. AreSliding(config, layers).Select(isSliding => isSliding ? sliding : full)];
    }
}
