using LoKr.Core.Configuration;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Targeting;
using TorchSharp;

namespace LoKr.Core.Conversion;

/// <summary>A LoRA adapter converted from a LoKr adapter, as by PEFT's <c>convert_to_lora</c>. Owns its tensors.</summary>
public sealed class LoraAdapter : IDisposable
{
    internal LoraAdapter(LoraConfig config, IReadOnlyDictionary<string, torch.Tensor> tensors, int rank, IReadOnlyList<LoraLayer> layers)
    {
        Config = config;
        Tensors = tensors;
        Rank = rank;
        Layers = layers;
        Ranks = layers.ToDictionary(static layer => layer.Name, static layer => layer.Rank, StringComparer.Ordinal);
        double energy = layers.Sum(static layer => layer.Energy);
        Energy = energy > 0 ? layers.Sum(static layer => layer.KeptEnergy) / energy : 1;
    }

    /// <summary>Its configuration.</summary>
    public LoraConfig Config { get; }

    /// <summary>Tensors by name without <c>base_model.model.</c>: <c>MODULE.lora_A.weight</c> r×in×kernel, <c>MODULE.lora_B.weight</c> out×r, and saved modules.</summary>
    public IReadOnlyDictionary<string, torch.Tensor> Tensors { get; }

    /// <summary>Rank of the matrices of all layers; the largest where the configuration has patterns.</summary>
    public int Rank { get; }

    /// <summary>Rank and error of each layer.</summary>
    public IReadOnlyList<LoraLayer> Layers { get; }

    /// <summary>The number of singular values that each layer keeps, by full module name. The matrices are larger where zeros fill them up to the common rank.</summary>
    public IReadOnlyDictionary<string, int> Ranks { get; }

    /// <summary>Share of the squared norm of all deltas that the LoRA weights hold; 1 for a lossless conversion.</summary>
    public double Energy { get; }

    /// <summary>Warnings for the user, about modules with random values that the adapter does not hold.</summary>
    public IReadOnlyList<string> Warnings { get; internal set; } = [];

    /// <summary>Identity of the base model.</summary>
    internal IReadOnlyDictionary<AdapterComponent, ModelIdentity> BaseModels { get; set; } = new Dictionary<AdapterComponent, ModelIdentity>();

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (torch.Tensor tensor in Tensors.Values)
        {
            tensor.Dispose();
        }
    }
}

/// <summary>The part of PEFT's <c>LoraConfig</c> that a converted adapter needs. Alpha is the rank where the weights contain the scaling.</summary>
public sealed record LoraConfig
{
    /// <summary>Rank of the layers that <see cref="RankPattern"/> does not name (PEFT <c>r</c>).</summary>
    public required int R { get; init; }

    /// <summary>Alpha over the rank: 1 where the weights contain the scaling (PEFT <c>lora_alpha</c> is this times <c>r</c>).</summary>
    public double Scale { get; init; } = 1;

    /// <summary>Rank and alpha by full module name (PEFT <c>rank_pattern</c>, <c>alpha_pattern</c>).</summary>
    public IReadOnlyList<KeyValuePair<string, int>> RankPattern { get; init; } = [];

    /// <summary>Modules with LoRA (PEFT <c>target_modules</c>).</summary>
    public required ModuleSelector TargetModules { get; init; }

    /// <summary>Modules excluded from the targets (PEFT <c>exclude_modules</c>).</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Indices of the layers (PEFT <c>layers_to_transform</c>).</summary>
    public IReadOnlyList<int>? LayersToTransform { get; init; }

    /// <summary>Name of the layer list (PEFT <c>layers_pattern</c>).</summary>
    public IReadOnlyList<string>? LayersPattern { get; init; }

    /// <summary>Modules saved whole (PEFT <c>modules_to_save</c>).</summary>
    public IReadOnlyList<string>? ModulesToSave { get; init; }

    /// <summary>Task of the model (PEFT <c>task_type</c>).</summary>
    public TaskType? TaskType { get; init; }

    /// <summary>Python class of a base model without task type (PEFT <c>auto_mapping</c>).</summary>
    public AutoMapping? AutoMapping { get; init; }

    /// <summary>Name or path of the base model (PEFT <c>base_model_name_or_path</c>).</summary>
    public string? BaseModelNameOrPath { get; init; }

    /// <summary>Revision of the base model (PEFT <c>revision</c>).</summary>
    public string? Revision { get; init; }

    /// <summary>Whether the layers store their weight in×out, as GPT-2's Conv1D does (PEFT <c>fan_in_fan_out</c>).</summary>
    public bool FanInFanOut { get; init; }
}

/// <summary>Creates the configuration of a converted adapter by PEFT's rules.</summary>
internal static class LoraConfigBuilder
{
    /// <summary>
    /// Without patterns every layer has the rank r, and the names of the converted layers are added to the targets of the LoKr adapter: other
    /// programs than PEFT read r and lora_alpha only. With patterns every layer has its own entry, as PEFT's <c>convert_to_lora</c> writes it.
    /// </summary>
    public static LoraConfig Create(LoKrConfig config, IReadOnlyDictionary<string, int> ranks, int rank, bool patterned, bool fanInFanOut)
    {
        IReadOnlyList<string>? given = config.TargetModules?.Names;
        ModuleSelector targets = config.TargetModules is { Pattern: not null } expression
            ? expression
            : ModuleSelector.FromNames((given ?? []).Concat(patterned && given is not null ? [] : ranks.Keys.Order(StringComparer.Ordinal)).Distinct(StringComparer.Ordinal));
        return new()
        {
            R = rank,
            RankPattern = patterned ? [.. Patterns(ranks)] : [],
            TargetModules = targets,
            ExcludeModules = config.ExcludeModules,
            LayersPattern = config.LayersPattern,
            LayersToTransform = config.LayersToTransform,
            ModulesToSave = config.ModulesToSave,
            TaskType = config.TaskType,
            AutoMapping = config.AutoMapping,
            BaseModelNameOrPath = config.BaseModelNameOrPath,
            Revision = config.Revision,
            FanInFanOut = fanInFanOut,
        };
    }

    /// <summary>Returns full names as PEFT writes them; anchored where one name is a suffix of another, which PEFT would confuse.</summary>
    private static KeyValuePair<string, int>[] Patterns(IReadOnlyDictionary<string, int> ranks)
    {
        KeyValuePair<string, int>[] plain = [.. ranks];
        ModulePatterns<int> patterns = new(plain);
        return ranks.All(layer => patterns.Find(layer.Key, 0) == layer.Value)
            ? plain
            : [.. ranks.Select(static layer => KeyValuePair.Create("^" + layer.Key.Replace(".", @"\.", StringComparison.Ordinal), layer.Value))];
    }
}
