using LoKr.Core.Configuration;
using LoKr.Core.Layouts.Names;
using LoKr.Core.Model;
using TorchSharp;

namespace LoKr.Core.Layouts;

/// <summary>An adapter in memory between reading and writing. Does not own its tensors: they live in the caller's dispose scope or model.</summary>
internal sealed record AdapterContent
{
    /// <summary>Modules with factors.</summary>
    public required IReadOnlyList<AdapterModule> Modules { get; init; }

    /// <summary>Changes of norms.</summary>
    public IReadOnlyList<AdapterNorm> Norms { get; init; } = [];

    /// <summary>Tensors of modules that are saved whole, by full name.</summary>
    public IReadOnlyDictionary<string, torch.Tensor> Saved { get; init; } = new Dictionary<string, torch.Tensor>();

    /// <summary>Tensors of other kinds of adapters that are carried as they are.</summary>
    public IReadOnlyList<AdapterOther> Others { get; init; } = [];

    /// <summary>Configurations by component, where the adapter has any.</summary>
    public IReadOnlyDictionary<AdapterComponent, LoKrConfig> Configs { get; init; } = new Dictionary<AdapterComponent, LoKrConfig>();

    /// <summary>Identities of the models that it was made for, by component, where they are known.</summary>
    public IReadOnlyDictionary<AdapterComponent, ModelIdentity> BaseModels { get; init; } = new Dictionary<AdapterComponent, ModelIdentity>();

    /// <summary>Metadata of the file's header.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; init; } = new Dictionary<string, string>();

    /// <summary>The decompose factor that a configuration or a trainer's metadata names, or null.</summary>
    public int? FactorHint { get; init; }

    /// <summary>All modules of the base model, for short target lists; empty where it is not known.</summary>
    public IReadOnlyCollection<string> AllNames { get; init; } = [];

    /// <summary>The model that it was made for, where its file or its base model tells; null to recognize it by the names of the modules.</summary>
    public RecognizedModel? Model { get; init; }

    /// <summary>A base model in one file that no table of names knows, so that nothing tells which part of a pipeline it is; null otherwise.</summary>
    public string? UnknownBase { get; init; }

    /// <summary>Components with modules, norms or other kinds of adapters.</summary>
    public IReadOnlyList<AdapterComponent> Components => [.. Names.Select(static name => name.Component).Distinct().Order()];

    /// <summary>Every module, norm and module of another kind by its name; a module may have tensors of two kinds.</summary>
    public IReadOnlyList<AdapterModuleName> Names =>
    [
        .. Modules.Select(static module => new AdapterModuleName(module.Component, module.Name, module.IsDotted))
            .Concat(Norms.Select(static norm => new AdapterModuleName(norm.Component, norm.Name, norm.IsDotted)))
            .Concat(Others.Select(static other => new AdapterModuleName(other.Component, other.Name, other.IsDotted))).Distinct(),
    ];
}

/// <summary>The name of a module of an adapter.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module.</param>
/// <param name="IsDotted">Whether the name has its dots.</param>
internal readonly record struct AdapterModuleName(AdapterComponent Component, string Name, bool IsDotted);

/// <summary>The factors of one module in memory, read from a file or taken from a model.</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the module.</param>
/// <param name="IsDotted">Whether the name has its dots; otherwise it has underscores in their place.</param>
/// <param name="Geometry">The shapes of the factors.</param>
/// <param name="Scale">The scale of w1 ⊗ w2.</param>
/// <param name="Tensors">Tensors by suffix, the alpha as it was stored.</param>
internal sealed record AdapterModule(
    AdapterComponent Component,
    string Name,
    bool IsDotted,
    FactorGeometry Geometry,
    ModuleScale Scale,
    IReadOnlyDictionary<string, torch.Tensor> Tensors)
{
    /// <summary>Shape of the base layer's weight as out×in×kernel; null where it is not known.</summary>
    public IReadOnlyList<long>? WeightShape { get; init; }

    /// <summary>Whether the factors of a one-dimensional convolution with a full w2 mean w2 ⊗ w1.</summary>
    public bool IsReversed { get; init; }

    /// <summary>Kernel size; null where neither the factors nor the base layer determine it.</summary>
    public IReadOnlyList<long>? Kernel => WeightShape is null ? Geometry.Kernel : [.. WeightShape.Skip(2)];

    /// <summary>Kind of the base layer where PEFT has no LoKr for it; null where it has, or where the kind is not known.</summary>
    public string? KindBeyondPeft { get; init; }

    /// <summary>Axis of DoRA's magnitudes; null without any.</summary>
    public WeightDecomposeAxis? DoraAxis { get; init; }

    /// <summary>The factors without the alpha.</summary>
    public IEnumerable<KeyValuePair<string, torch.Tensor>> Factors => Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha);

    /// <inheritdoc/>
    public override string ToString() => Component == AdapterComponent.Model ? Name : $"{Component} {Name}";
}

/// <summary>Changes of a norm's weight and bias (LyCORIS <c>train_norm</c>).</summary>
/// <param name="Component">Part of the pipeline.</param>
/// <param name="Name">Name of the norm.</param>
/// <param name="IsDotted">Whether the name has its dots.</param>
/// <param name="Tensors">w_norm and b_norm, and an alpha where the file has one.</param>
internal sealed record AdapterNorm(AdapterComponent Component, string Name, bool IsDotted, IReadOnlyDictionary<string, torch.Tensor> Tensors)
{
    /// <summary>The changes without an alpha, which has no meaning here.</summary>
    public IEnumerable<KeyValuePair<string, torch.Tensor>> Changes => Tensors.Where(static pair => pair.Key != AdapterSuffixes.Alpha);
}
