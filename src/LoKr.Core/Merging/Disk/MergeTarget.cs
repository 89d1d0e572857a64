using LoKr.Core.Formats;

namespace LoKr.Core.Merging;

/// <summary>One tensor of the result and what becomes of it.</summary>
/// <param name="Name">Its name in the result.</param>
/// <param name="DType">Its element type.</param>
/// <param name="Shape">Its shape.</param>
internal sealed record MergeTarget(string Name, SafetensorsDType DType, IReadOnlyList<long> Shape)
{
    /// <summary>The file of the base it comes from, or null for a tensor that an adapter adds.</summary>
    public SafetensorsReader? Shard { get; init; }

    /// <summary>The tensor of the base, or null for one that an adapter adds.</summary>
    public SafetensorsEntry? Entry { get; init; }

    /// <summary>Deltas to add, in order.</summary>
    public IReadOnlyList<MergeContribution> Contributions { get; init; } = [];

    /// <summary>Changes of a norm's weight or bias to add, with their strength.</summary>
    public IReadOnlyList<(ITensorSource Source, string Key, double Strength)> Changes { get; init; } = [];

    /// <summary>The adapter's tensor that takes its place, or null.</summary>
    public (ITensorSource Source, string Key)? Replacement { get; init; }

    /// <summary>Whether its bytes are those of the base.</summary>
    public bool IsCopy => Contributions.Count == 0 && Changes.Count == 0 && Replacement is null;

    /// <summary>Name, type and shape for a header.</summary>
    public SafetensorsHeaderItem Header => new(Name, DType, Shape);
}
