namespace LoKr.Models.Families;

/// <summary>
/// Granite 3 (IBM Research, 2024), <c>GraniteForCausalLM</c> in transformers: Llama with factors on embeddings, scores, the output of every block
/// and logits.
/// </summary>
internal static class Granite
{
    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = new LlamaFamily
    {
        ModelType = "granite",
        ClassName = "GraniteForCausalLM",
        DefaultPositions = 2048,
        DefaultEosId = 2,
        InputBias = static config => config.GetBool("attention_bias", false),
        OutputBias = static config => config.GetBool("attention_bias", false),
        MlpBias = static config => config.GetBool("mlp_bias", false),
        EmbeddingScale = static config => config.GetDouble("embedding_multiplier", 1),
        AttentionScale = static config => config.GetDouble("attention_multiplier", 1),
        ResidualScale = static config => config.GetDouble("residual_multiplier", 1),
        LogitScale = static config => config.GetDouble("logits_scaling", 1) is var divisor and > 0
            ? 1 / divisor
            : throw config.Invalid("logits_scaling", "is not positive; logits are divided by it"),
    }.Register();
}
