using LoKr.Core.Adapters;
using TorchSharp;

namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>An adapter in memory between reading and writing. Does not own its tensors: they live in the caller's dispose scope or model.</summary>
internal sealed record AdapterContent
{
    /// <summary>Modules with factors.</summary>
    public required IReadOnlyList<AdapterModule> Modules { get; init; }

    /// <summary>Changes of norms.</summary>
    public IReadOnlyList<AdapterNorm> Norms { get; init; } = [];

    /// <summary>Tensors of modules that are saved whole, by full name.</summary>
    public IReadOnlyDictionary<string, torch.Tensor> Saved { get; init; } = new Dictionary<string, torch.Tensor>();

    /// <summary>Configurations by component, where some came with the adapter.</summary>
    public IReadOnlyDictionary<AdapterComponent, LoKrConfig> Configs { get; init; } = new Dictionary<AdapterComponent, LoKrConfig>();

    /// <summary>Metadata of the file's header.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; init; } = new Dictionary<string, string>();

    /// <summary>A factor that a configuration or a trainer's metadata names.</summary>
    public int? FactorHint { get; init; }

    /// <summary>All modules of the base model, for short target lists; empty where it is not known.</summary>
    public IReadOnlyCollection<string> AllNames { get; init; } = [];

    /// <summary>Components that have anything.</summary>
    public IReadOnlyList<AdapterComponent> Components =>
        [.. Modules.Select(static module => module.Component).Concat(Norms.Select(static norm => norm.Component)).Distinct().Order()];
}
