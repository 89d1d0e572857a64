using LoKr.Core.Factors;
using LoKr.Core.IO;

namespace LoKr.Core.Model;

/// <summary>One adapter of a model in memory. Flat and serializable.</summary>
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

    /// <summary>Whether the adapters of the model are enabled.</summary>
    public required bool IsEnabled { get; init; }

    /// <summary>Whether its parameters take gradients now.</summary>
    public required TriState RequiresGrad { get; init; }

    /// <summary>Strength, 1 as trained.</summary>
    public required double Scale { get; init; }

    /// <summary>Meaning of the strength where the adapter has DoRA; null for one without.</summary>
    public DoraStrength? DoraStrength { get; init; }

    /// <summary>Rank of its configuration.</summary>
    public required int R { get; init; }

    /// <summary>Alpha of its configuration.</summary>
    public required double Alpha { get; init; }

    /// <summary>Number of adapted layers.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Modules that it trains whole.</summary>
    public required IReadOnlyList<string> SavedModules { get; init => field = ValueList.Of(value); }

    /// <summary>Number of its parameters.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Element types of its parameters, for example float32.</summary>
    public required IReadOnlyList<string> DTypes { get; init => field = ValueList.Of(value); }

    /// <summary>Kinds of devices that hold its parameters, for example cpu.</summary>
    public required IReadOnlyList<string> Devices { get; init => field = ValueList.Of(value); }

    /// <summary>Modules that it targets.</summary>
    public string? TargetModules { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>One adapted layer, with the values of PEFT's <c>get_layer_status</c>. Flat and serializable.</summary>
public sealed record LoKrLayerStatus
{
    /// <summary>Full name of the layer.</summary>
    public required string Name { get; init; }

    /// <summary>Kind of the layer, for example <c>lokr.Linear</c>.</summary>
    public required string ModuleType { get; init; }

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public required bool Enabled { get; init; }

    /// <summary>Active adapters of the model; one that is not on this layer is listed too, as in PEFT.</summary>
    public required IReadOnlyList<string> ActiveAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Adapters that are merged into the weight of this layer.</summary>
    public required IReadOnlyList<string> MergedAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Whether the factors take gradients, by adapter.</summary>
    public required IReadOnlyDictionary<string, TriState> RequiresGrad { get; init => field = ValueList.Of(value); }

    /// <summary>Adapters on this layer, by name.</summary>
    public required IReadOnlyList<string> AvailableAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Kinds of devices that hold the factors, by adapter.</summary>
    public required IReadOnlyDictionary<string, IReadOnlyList<string>> Devices { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>All adapted layers of a model together, with the values of PEFT's <c>get_model_status</c>. Flat and serializable.</summary>
public sealed record LoKrModelStatus
{
    /// <summary>The one entry of a list on which the layers disagree.</summary>
    public const string Irregular = "irregular";

    /// <summary>Class name of the model.</summary>
    public required string BaseModelType { get; init; }

    /// <summary>Kind of the adapters: <c>LoKrModel</c>, as in PEFT.</summary>
    public string AdapterModelType { get; } = nameof(LoKrModel);

    /// <summary>PEFT's type of each adapter: <c>LOKR</c>.</summary>
    public required IReadOnlyDictionary<string, string> PeftTypes { get; init => field = ValueList.Of(value); }

    /// <summary>Parameters that take gradients.</summary>
    public required long TrainableParams { get; init; }

    /// <summary>All parameters, those of the adapters included.</summary>
    public required long TotalParams { get; init; }

    /// <summary>Number of adapted layers.</summary>
    public required int NumAdapterLayers { get; init; }

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public required TriState Enabled { get; init; }

    /// <summary>Active adapters, or <c>irregular</c>.</summary>
    public required IReadOnlyList<string> ActiveAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Merged adapters, or <c>irregular</c> where one of them is not merged on a layer that it is on.</summary>
    public required IReadOnlyList<string> MergedAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Whether the factors take gradients, by adapter.</summary>
    public required IReadOnlyDictionary<string, TriState> RequiresGrad { get; init => field = ValueList.Of(value); }

    /// <summary>All adapters, by name.</summary>
    public required IReadOnlyList<string> AvailableAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Kinds of devices that hold the factors, by adapter.</summary>
    public required IReadOnlyDictionary<string, IReadOnlyList<string>> Devices { get; init => field = ValueList.Of(value); }

    /// <summary>Combines the states of layers by PEFT's rules.</summary>
    /// <param name="layers">The layers; may be none.</param>
    /// <param name="modelType">Class name of the model.</param>
    /// <param name="adapters">Names of all adapters.</param>
    /// <param name="count">Parameters of the model.</param>
    internal static LoKrModelStatus Combine(IReadOnlyList<LoKrLayerStatus> layers, string modelType, IReadOnlyList<string> adapters, ParameterCount count)
    {
        HashSet<string> merged = [.. layers.SelectMany(static layer => layer.MergedAdapters)];
        bool mergedAlike = layers.All(layer => merged.Intersect(layer.AvailableAdapters).All(layer.MergedAdapters.Contains));
        bool activeAlike = layers.Skip(1).All(layer => layer.ActiveAdapters.SequenceEqual(layers[0].ActiveAdapters, StringComparer.Ordinal));
        return new()
        {
            BaseModelType = modelType,
            PeftTypes = adapters.ToDictionary(static name => name, static _ => "LOKR", StringComparer.Ordinal),
            TrainableParams = count.Trainable,
            TotalParams = count.Total,
            NumAdapterLayers = layers.Count,
            Enabled = Common(layers.Select(static layer => layer.Enabled ? TriState.True : TriState.False)),
            ActiveAdapters = activeAlike ? layers.Count == 0 ? [] : layers[0].ActiveAdapters : [Irregular],
            MergedAdapters = mergedAlike ? [.. merged.Order(StringComparer.Ordinal)] : [Irregular],
            RequiresGrad = ByAdapter(static layer => layer.RequiresGrad, static values => Common(values)),
            AvailableAdapters = [.. layers.SelectMany(static layer => layer.AvailableAdapters).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)],
            Devices = ByAdapter(static layer => layer.Devices, static values => (IReadOnlyList<string>)[.. values.SelectMany(static value => value).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)]),
        };

        Dictionary<string, T> ByAdapter<T>(Func<LoKrLayerStatus, IReadOnlyDictionary<string, T>> select, Func<IEnumerable<T>, T> combine) => layers
            .SelectMany(select)
            .GroupBy(static entry => entry.Key, static entry => entry.Value, StringComparer.Ordinal)
            .ToDictionary(static group => group.Key, group => combine(group), StringComparer.Ordinal);
    }

    /// <summary>The value that all have in common, or irregular; False for no value.</summary>
    internal static TriState Common(IEnumerable<TriState> values) => values.Distinct().ToArray() switch
    {
        [] => TriState.False,
        [TriState one] => one,
        _ => TriState.Irregular,
    };
}

/// <summary>One module of a model. Flat and serializable.</summary>
public sealed record LoKrModuleInfo
{
    /// <summary>Full dotted name.</summary>
    public required string Name { get; init; }

    /// <summary>Class name, for example Linear.</summary>
    public required string ModuleType { get; init; }

    /// <summary>Shape of the weight, empty where there is none.</summary>
    public required IReadOnlyList<long> Shape { get; init => field = ValueList.Of(value); }

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
    public required IReadOnlyList<string> Adapters { get; init => field = ValueList.Of(value); }

    /// <summary>Those of them that are active.</summary>
    public required IReadOnlyList<string> ActiveAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Those of them that are merged into the weight.</summary>
    public required IReadOnlyList<string> MergedAdapters { get; init => field = ValueList.Of(value); }

    /// <summary>Factor shapes of the adapters, for example <c>w1 16×16, w2_a 24×8, w2_b 8×24</c>.</summary>
    public required IReadOnlyList<string> FactorShapes { get; init => field = ValueList.Of(value); }

    /// <summary>Parameters that the adapters add.</summary>
    public required long AdapterParameterCount { get; init; }

    /// <summary>Names of the adapters that train a copy of the whole module (modules_to_save).</summary>
    public required IReadOnlyList<string> SavedBy { get; init => field = ValueList.Of(value); }

    /// <inheritdoc/>
    public override string ToString() => Name;
}

/// <summary>Trainable and total parameters, as PEFT's <c>print_trainable_parameters</c> counts them.</summary>
/// <param name="Trainable">Parameters that take gradients.</param>
/// <param name="Total">All parameters: base, adapters and the trained copies of saved modules.</param>
public sealed record ParameterCount(long Trainable, long Total)
{
    /// <summary>Share of trainable parameters in percent.</summary>
    public double TrainablePercent => Total == 0 ? 0 : 100.0 * Trainable / Total;

    /// <inheritdoc/>
    public override string ToString() => string.Create(System.Globalization.CultureInfo.InvariantCulture,
        $"trainable params: {Trainable:N0} || all params: {Total:N0} || trainable%: {TrainablePercent:F4}");
}

/// <summary>A yes or no over many parameters or layers, which may disagree.</summary>
public enum TriState
{
    /// <summary>None of them.</summary>
    False,

    /// <summary>All of them.</summary>
    True,

    /// <summary>Some of them and others not, which only code outside the library causes (PEFT <c>"irregular"</c>).</summary>
    Irregular,
}
