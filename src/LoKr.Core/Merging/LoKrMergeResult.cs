namespace LoKr.Core.Merging;

/// <summary>What a merge changed. Flat and serialisable.</summary>
public sealed record LoKrMergeResult
{
    /// <summary>Adapters that were merged.</summary>
    public required IReadOnlyList<string> Adapters { get; init; }

    /// <summary>Number of base weights that changed.</summary>
    public required int ModuleCount { get; init; }

    /// <summary>Number of modules that were replaced by their trained copy (modules_to_save).</summary>
    public required int SavedModuleCount { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <summary>Folder that was written, or null for a merge in memory.</summary>
    public string? Destination { get; init; }

    /// <summary>Bytes of the files of weights that were written; 0 for a merge in memory.</summary>
    public long ByteCount { get; init; }

    /// <summary>Names of these files.</summary>
    public IReadOnlyList<string> Files { get; init; } = [];

    /// <summary>How many of these files an interrupted run had finished before.</summary>
    public int ResumedFileCount { get; init; }

    /// <summary>What the merge means for other adapters, for people.</summary>
    public IReadOnlyList<string> Warnings { get; init; } = [];

    /// <inheritdoc/>
    public override string ToString() => $"{string.Join(", ", Adapters)} in {ModuleCount} weights{(SavedModuleCount == 0 ? "" : $", {SavedModuleCount} modules replaced")}";
}
