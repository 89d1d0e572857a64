using System.Text.Json.Nodes;

namespace LoKr.Models.Families;

/// <summary>
/// Phi-3 (Abdin et al., arXiv:2404.14219), Phi-3.5 and Phi-4-mini, <c>Phi3ForCausalLM</c> in transformers: Llama with one projection to queries,
/// keys and values, one to gate and up, and long sequences by longrope.
/// </summary>
internal static class Phi3
{
    internal static IReadOnlyList<ModelArchitecture> Registrations { get; } = new LlamaFamily
    {
        ModelType = "phi3",
        ClassName = "Phi3ForCausalLM",
        ClassifierName = "Phi3ForSequenceClassification",
        TokenClassifierName = "Phi3ForTokenClassification",
        OldTokenHead = "classifier",
        DefaultPositions = 4096,
        DefaultEosId = 32000,

        // The order is transformers', in which adapters list their layers.
        Layer =
        [
            (LayerPart.AttentionOutput, "self_attn.o_proj"),
            (LayerPart.QueryKeyValue, "self_attn.qkv_proj"),
            (LayerPart.GateUp, "mlp.gate_up_proj"),
            (LayerPart.Down, "mlp.down_proj"),
            .. LlamaFamily.InputNorms,
        ],
        DefaultNormEpsilon = 1e-5,
        BlockDropout = static config => config.GetProbability("resid_pdrop", 0),
        Windows = static (config, layers) => [.. Enumerable.Repeat(config.Has("sliding_window") ? config.GetSize("sliding_window") : (int?)null, layers)],
        Ropes = static (config, width, positions, layers) =>
            [.. Enumerable.Repeat(new RopeSettings(config, width, positions, new() { LongRopeNames = ["su", "yarn"] }), layers)],

        // A text that grows beyond the short form is rotated by the long one from its first token on.
        CacheLimit = static rope => rope.Type == "longrope" ? rope.OriginalPositions : null,
        WriteSpellings = static (json, stack) =>
        {
            RopeSettings rope = stack.Ropes[0]!;
            ConfigSpellings.WriteRope(json, rope, OldScaling(rope));
        },
        Check = static config =>
        {
            if (config.GetDouble("embd_pdrop", 0) != 0)
            {
                throw config.Unsupported("embd_pdrop", "is not 0; a dropout of the embeddings is not supported");
            }

            if (config.GetBool("attention_bias", false))
            {
                throw config.Unsupported("attention_bias", "is true; the projections have no bias");
            }
        },
    }.Register();

    // Releases before 5 refuse a scaling with other members than these.
    private static JsonObject OldScaling(RopeSettings rope)
    {
        JsonObject given = rope.Parameters.ToJsonObject();
        return new()
        {
            ["type"] = rope.Type,
            ["short_factor"] = given["short_factor"]?.DeepClone(),
            ["long_factor"] = given["long_factor"]?.DeepClone(),
        };
    }
}
