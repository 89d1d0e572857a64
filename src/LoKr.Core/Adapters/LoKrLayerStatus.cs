namespace LoKr.Core.Adapters;

/// <summary>One adapted layer, with what PEFT's <c>get_layer_status</c> gives. Flat and serialisable.</summary>
public sealed record LoKrLayerStatus
{
    /// <summary>Full name of the layer.</summary>
    public required string Name { get; init; }

    /// <summary>Kind of the layer, for example <c>lokr.Linear</c>.</summary>
    public required string ModuleType { get; init; }

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public required bool Enabled { get; init; }

    /// <summary>Active adapters of the model; one that is not on this layer is listed too, as in PEFT.</summary>
    public required IReadOnlyList<string> ActiveAdapters { get; init; }

    /// <summary>Adapters that are merged into the weight of this layer.</summary>
    public required IReadOnlyList<string> MergedAdapters { get; init; }

    /// <summary>Whether the factors take gradients, by adapter.</summary>
    public required IReadOnlyDictionary<string, TriState> RequiresGrad { get; init; }

    /// <summary>Adapters on this layer, by name.</summary>
    public required IReadOnlyList<string> AvailableAdapters { get; init; }

    /// <summary>Kinds of devices that hold the factors, by adapter.</summary>
    public required IReadOnlyDictionary<string, IReadOnlyList<string>> Devices { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}
