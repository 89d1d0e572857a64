namespace LoKr.Core.Training;

/// <summary>A finished or stopped training run.</summary>
public sealed record LoKrTrainingResult
{
    /// <summary>Name of the adapter that was trained.</summary>
    public required string AdapterName { get; init; }

    /// <summary>Every step.</summary>
    public required IReadOnlyList<LoKrTrainingStep> History { get; init; }

    /// <summary>Completed or Canceled.</summary>
    public required string StopReason { get; init; }

    /// <summary>Evaluation before the first step, if there is evaluation data and it was asked for.</summary>
    public LoKrEvaluation? Before { get; init; }

    /// <summary>Evaluation after the last step, if there is evaluation data.</summary>
    public LoKrEvaluation? After { get; init; }

    /// <summary>Seed of the order of the rows: the one that was given, or the one that was drawn.</summary>
    public long Seed { get; init; }

    /// <summary>Number of trainable parameters.</summary>
    public required long TrainableParameterCount { get; init; }

    /// <summary>The most memory that the process held during the run, in bytes; the memory of a GPU is not part of it.</summary>
    public long PeakMemoryBytes { get; init; }

    /// <summary>How long it took.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <inheritdoc/>
    public override string ToString() => $"{StopReason} after {History.Count} steps of adapter '{AdapterName}'{(After is null ? "" : $": {After}")}";
}
