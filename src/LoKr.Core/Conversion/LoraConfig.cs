using System.Collections.Immutable;
using LoKr.Core.Adapters;

namespace LoKr.Core.Conversion;

/// <summary>The part of PEFT's <c>LoraConfig</c> that a converted adapter needs. Alpha is the rank everywhere: the scaling is in the weights.</summary>
public sealed record LoraConfig
{
    /// <summary>Rank of the layers that <see cref="RankPattern"/> does not name, and alpha (PEFT <c>r</c>, <c>lora_alpha</c>).</summary>
    public required int R { get; init; }

    /// <summary>Rank and alpha by full module name (PEFT <c>rank_pattern</c>, <c>alpha_pattern</c>).</summary>
    public ImmutableArray<KeyValuePair<string, int>> RankPattern { get; init; } = [];

    /// <summary>Modules with LoRA (PEFT <c>target_modules</c>).</summary>
    public required ModuleSelector TargetModules { get; init; }

    /// <summary>Modules left alone although targeted (PEFT <c>exclude_modules</c>).</summary>
    public ModuleSelector? ExcludeModules { get; init; }

    /// <summary>Indices of the layers (PEFT <c>layers_to_transform</c>).</summary>
    public ImmutableArray<int>? LayersToTransform { get; init; }

    /// <summary>Name of the layer list (PEFT <c>layers_pattern</c>).</summary>
    public ImmutableArray<string>? LayersPattern { get; init; }

    /// <summary>Modules saved whole (PEFT <c>modules_to_save</c>).</summary>
    public ImmutableArray<string>? ModulesToSave { get; init; }

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
