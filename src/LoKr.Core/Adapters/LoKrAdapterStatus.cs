namespace LoKr.Core.Adapters;

/// <summary>One adapter of a model in memory, as <c>Get-LoKrAdapter -Model</c> shows it. Flat and serialisable.</summary>
public sealed record LoKrAdapterStatus
{
    /// <summary>Name of the adapter.</summary>
    public required string Name { get; init; }

    /// <summary>Class name of the model.</summary>
    public required string Model { get; init; }

    /// <summary>Whether it is one of the active adapters.</summary>
    public required bool IsActive { get; init; }

    /// <summary>Whether it is merged into the base weights.</summary>
    public required bool IsMerged { get; init; }

    /// <summary>Whether the adapters of the model are switched on.</summary>
    public required bool IsEnabled { get; init; }

    /// <summary>Whether its parameters take gradients now.</summary>
    public required TriState RequiresGrad { get; init; }

    /// <summary>Strength, 1 as trained.</summary>
    public required double Scale { get; init; }

    /// <summary>Rank of its configuration.</summary>
    public required int R { get; init; }

    /// <summary>Alpha of its configuration.</summary>
    public required double Alpha { get; init; }

    /// <summary>Number of adapted layers.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Modules that it trains whole.</summary>
    public required IReadOnlyList<string> SavedModules { get; init; }

    /// <summary>Number of its parameters.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Element types of its parameters, for example float32.</summary>
    public required IReadOnlyList<string> DTypes { get; init; }

    /// <summary>Kinds of devices that hold its parameters, for example cpu.</summary>
    public required IReadOnlyList<string> Devices { get; init; }

    /// <summary>Modules that it targets.</summary>
    public string? TargetModules { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}
