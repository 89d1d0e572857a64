namespace LoKr.Core.Adapters;

/// <summary>One module of a model as <c>Get-LoKrModule</c> shows it. Flat and serialisable.</summary>
public sealed record LoKrModuleInfo
{
    /// <summary>Full dotted name.</summary>
    public required string Name { get; init; }

    /// <summary>Class name, for example Linear.</summary>
    public required string ModuleType { get; init; }

    /// <summary>Shape of the weight, empty where there is none.</summary>
    public required IReadOnlyList<long> Shape { get; init; }

    /// <summary>Parameters of the module itself, without its children and without adapters.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Element type of the weight, for example float32; null where there is none.</summary>
    public string? DType { get; init; }

    /// <summary>Device of the weight; null where there is none.</summary>
    public string? Device { get; init; }

    /// <summary>Whether the module can take a LoKr adapter.</summary>
    public required bool IsSupported { get; init; }

    /// <summary>Whether any adapter is attached.</summary>
    public required bool IsAdapted { get; init; }

    /// <summary>Names of the adapters on this module.</summary>
    public required IReadOnlyList<string> Adapters { get; init; }

    /// <summary>Those of them that are active.</summary>
    public required IReadOnlyList<string> ActiveAdapters { get; init; }

    /// <summary>Those of them that are merged into the weight.</summary>
    public required IReadOnlyList<string> MergedAdapters { get; init; }

    /// <summary>Factor shapes of the adapters, for example <c>w1 16×16, w2_a 24×8, w2_b 8×24</c>.</summary>
    public required IReadOnlyList<string> FactorShapes { get; init; }

    /// <summary>Parameters that the adapters add.</summary>
    public required long AdapterParameterCount { get; init; }

    /// <summary>Names of the adapters that train a copy of this module whole (modules_to_save).</summary>
    public required IReadOnlyList<string> SavedBy { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}
