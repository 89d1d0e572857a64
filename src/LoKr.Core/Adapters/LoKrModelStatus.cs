namespace LoKr.Core.Adapters;

/// <summary>All adapted layers of a model together, with what PEFT's <c>get_model_status</c> gives. Flat and serialisable.</summary>
public sealed record LoKrModelStatus
{
    /// <summary>The one entry of a list on which the layers disagree.</summary>
    public const string Irregular = "irregular";

    /// <summary>Class name of the model.</summary>
    public required string BaseModelType { get; init; }

    /// <summary>Kind of the adapters: <c>LoKrModel</c>, as in PEFT.</summary>
    public string AdapterModelType { get; } = nameof(LoKrModel);

    /// <summary>PEFT's type of each adapter: <c>LOKR</c>.</summary>
    public required IReadOnlyDictionary<string, string> PeftTypes { get; init; }

    /// <summary>Parameters that take gradients.</summary>
    public required long TrainableParams { get; init; }

    /// <summary>All parameters, those of the adapters included.</summary>
    public required long TotalParams { get; init; }

    /// <summary>Number of adapted layers.</summary>
    public required int NumAdapterLayers { get; init; }

    /// <summary>Whether adapters take part in the forward pass.</summary>
    public required TriState Enabled { get; init; }

    /// <summary>Active adapters, or <c>irregular</c>.</summary>
    public required IReadOnlyList<string> ActiveAdapters { get; init; }

    /// <summary>Merged adapters, or <c>irregular</c> where one of them is not merged on a layer that it is on.</summary>
    public required IReadOnlyList<string> MergedAdapters { get; init; }

    /// <summary>Whether the factors take gradients, by adapter.</summary>
    public required IReadOnlyDictionary<string, TriState> RequiresGrad { get; init; }

    /// <summary>All adapters, by name.</summary>
    public required IReadOnlyList<string> AvailableAdapters { get; init; }

    /// <summary>Kinds of devices that hold the factors, by adapter.</summary>
    public required IReadOnlyDictionary<string, IReadOnlyList<string>> Devices { get; init; }

    /// <summary>Puts the states of layers together, by PEFT's rules.</summary>
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

    /// <summary>What all values say, or that they differ; no value at all says no.</summary>
    internal static TriState Common(IEnumerable<TriState> values) => values.Distinct().ToArray() switch
    {
        [] => TriState.False,
        [TriState one] => one,
        _ => TriState.Irregular,
    };
}
