using System.Collections.Immutable;
using LoKr.Core.Conversion;

namespace LoKr.Core.Formats;

/// <summary>Writes the <c>adapter_config.json</c> of a LoRA adapter with the keys that every PEFT since 0.14 knows; others take PEFT's defaults.</summary>
internal static class LoraConfigJson
{
    /// <summary>The text that PEFT reads.</summary>
    public static string Write(LoraConfig config)
    {
        // Keys in ordinal order, as PEFT sorts them.
        JsonMembers pattern = LoKrConfigJson.Map(config.RankPattern, static rank => (long)rank);
        JsonMembers members = new()
        {
            { "alpha_pattern", pattern },
            { "auto_mapping", LoKrConfigJson.Mapping(config.AutoMapping) },
            { "base_model_name_or_path", config.BaseModelNameOrPath },
            { "bias", "none" },
            { "exclude_modules", LoKrConfigJson.Selector(config.ExcludeModules) },
            { "fan_in_fan_out", config.FanInFanOut },
            { "inference_mode", true },
            { "init_lora_weights", true },
            { "layers_pattern", Sequence(config.LayersPattern) },
            { "layers_to_transform", Sequence(config.LayersToTransform) },
            { "lora_alpha", config.R },
            { "lora_dropout", 0.0 },
            { "modules_to_save", Sequence(config.ModulesToSave) },
            { "peft_type", "LORA" },
            { "peft_version", LoKrConfigJson.PeftVersion },
            { "r", config.R },
            { "rank_pattern", pattern },
            { "revision", config.Revision },
            { "target_modules", LoKrConfigJson.Selector(config.TargetModules) },
            { "task_type", config.TaskType is { } task ? TaskTypeNames.Name(task) : null },
            { "use_dora", false },
            { "use_rslora", false },
        };
        return PythonJson.Write(members);
    }

    private static IEnumerable<object?>? Sequence<T>(ImmutableArray<T>? values) => values is { IsDefault: false } some ? some.Cast<object?>() : null;
}
