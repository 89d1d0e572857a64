using LoKr.Core.Configuration;

namespace LoKr.Core.Targeting;

/// <summary>Target modules by <c>model_type</c> when a configuration names none, as PEFT has them.</summary>
public static class DefaultTargets
{
    private static readonly Dictionary<string, ModuleSelector> ByModelType = Build();

    /// <summary>Architectures with a default, in alphabetical order.</summary>
    public static IReadOnlyList<string> ModelTypes { get; } = [.. ByModelType.Keys.Order(StringComparer.Ordinal)];

    /// <summary>The default of an architecture, or null.</summary>
    public static ModuleSelector? Find(string? modelType) => modelType is null ? null : ByModelType.GetValueOrDefault(modelType);

    private static Dictionary<string, ModuleSelector> Build()
    {
        Dictionary<string, ModuleSelector> targets = new(StringComparer.Ordinal);
        void Add(string[] modelTypes, params string[] names)
        {
            foreach (string modelType in modelTypes)
            {
                targets.Add(modelType, ModuleSelector.FromNames(names));
            }
        }

        Add(["t5", "mt5"], "q", "v");
        Add(
            [
                "bart", "opt", "gptj", "gpt_neo", "llama", "llama4", "mistral", "mixtral", "stablelm",
                "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3",
            ],
            "q_proj", "v_proj");
        Add(["gpt2", "gpt_bigcode"], "c_attn");
        Add(["bloom", "gpt_neox", "chatglm", "RefinedWebModel", "RefinedWeb", "falcon"], "query_key_value");
        Add(["blip-2"], "q", "v", "q_proj", "v_proj");
        Add(["bert", "roberta", "xlm-roberta", "electra", "layoutlm"], "query", "value");
        Add(["deberta-v2"], "query_proj", "value_proj");
        Add(["deberta"], "in_proj");
        Add(["mpt"], "Wqkv");
        Add(["btlm"], "c_proj", "c_attn");
        Add(["codegen"], "qkv_proj");
        Add(["phi"], "q_proj", "v_proj", "fc1", "fc2");
        Add(["nemotron_h"], "q_proj", "k_proj", "v_proj", "o_proj");
        Add(["rwkv"], "key", "value", "receptance", "output");
        Add(["rwkv7"], "r_proj", "k_proj", "v_proj", "o_proj", "key", "value");
        targets.Add("gemma4", ModuleSelector.FromPattern(@".*language_model\..*\.(q_proj|v_proj)"));
        return targets;
    }
}
