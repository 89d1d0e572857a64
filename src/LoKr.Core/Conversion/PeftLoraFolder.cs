using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.Factors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;

namespace LoKr.Core.Conversion;

/// <summary>Writes a LoRA adapter in the layout of PEFT, so that <c>PeftModel.from_pretrained</c>, transformers and diffusers load it.</summary>
public static class PeftLoraFolder
{
    /// <summary>Writes <c>adapter_config.json</c> and <c>adapter_model.safetensors</c>; the folder appears complete or not at all.</summary>
    /// <param name="folder">Folder to write. Other files of a folder that is replaced stay.</param>
    /// <param name="adapter">The adapter.</param>
    /// <param name="force">Whether to replace an existing adapter.</param>
    /// <returns>Warnings: tensors with NaN or infinity.</returns>
    /// <exception cref="LoKrException"><c>LoKr.DestinationExists</c>, <c>LoKr.FileNotWritable</c>.</exception>
    public static IReadOnlyList<string> Write(string folder, LoraAdapter adapter, bool force = false)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        string[] warnings = [.. NonFinite.Warnings(adapter.Tensors)];
        PeftAdapterFolder.Write(folder, LoraConfigJson.Write(adapter.Config), adapter.Tensors, adapter.BaseModels, force);
        return warnings;
    }
}

/// <summary>Writes the <c>adapter_config.json</c> of a LoRA adapter with the keys of every PEFT since 0.14; other keys have PEFT's defaults.</summary>
internal static class LoraConfigJson
{
    /// <summary>Returns the text that PEFT reads.</summary>
    public static string Write(LoraConfig config)
    {
        // Keys in ordinal order, as PEFT sorts them.
        double alpha = Alpha(config);
        JsonMembers pattern = LoKrConfigJson.Map(config.RankPattern, static rank => (long)rank);
        JsonMembers members = new()
        {
            { "alpha_pattern", pattern },
            { "auto_mapping", LoKrConfigJson.Mapping(config.AutoMapping) },
            { "base_model_name_or_path", MachinePaths.NameOf(config.BaseModelNameOrPath) },
            { "bias", "none" },
            { "exclude_modules", LoKrConfigJson.Selector(config.ExcludeModules) },
            { "fan_in_fan_out", config.FanInFanOut },
            { "inference_mode", true },
            { "init_lora_weights", true },
            { "layers_pattern", Sequence(config.LayersPattern) },
            { "layers_to_transform", Sequence(config.LayersToTransform) },
            { "lora_alpha", double.IsInteger(alpha) && Math.Abs(alpha) < int.MaxValue ? (object)(long)alpha : alpha },
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

    // What the division by another rank left of a whole number is rounded away.
    private static double Alpha(LoraConfig config)
    {
        double alpha = config.R * config.Scale;
        return Math.Abs(alpha - Math.Round(alpha)) <= 1e-12 * Math.Abs(alpha) ? Math.Round(alpha) : alpha;
    }

    private static IEnumerable<object?>? Sequence<T>(IReadOnlyList<T>? values) => values?.Cast<object?>();
}
