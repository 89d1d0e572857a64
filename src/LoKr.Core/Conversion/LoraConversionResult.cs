namespace LoKr.Core.Conversion;

/// <summary>What a conversion to LoRA wrote. Flat and serialisable.</summary>
public sealed record LoraConversionResult
{
    /// <summary>Full path of the folder.</summary>
    public required string Path { get; init; }

    /// <summary>Number of layers with LoRA.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Smallest rank of a layer.</summary>
    public required int SmallestRank { get; init; }

    /// <summary>Largest rank of a layer.</summary>
    public required int LargestRank { get; init; }

    /// <summary>Number of numbers in the LoRA weights and in modules saved whole.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Share of the squared norm of all deltas that the LoRA weights hold; 1 for a conversion without loss.</summary>
    public required double Energy { get; init; }

    /// <summary>Describes what was written.</summary>
    public static LoraConversionResult Of(string path, LoraAdapter adapter)
    {
        ArgumentNullException.ThrowIfNull(adapter);
        return new()
        {
            Path = path,
            ModuleCount = adapter.Ranks.Count,
            SmallestRank = adapter.Ranks.Values.Min(),
            LargestRank = adapter.Ranks.Values.Max(),
            ParameterCount = adapter.Tensors.Values.Sum(static tensor => tensor.numel()),
            Energy = adapter.Energy,
        };
    }

    /// <inheritdoc/>
    public override string ToString() => Path;
}
