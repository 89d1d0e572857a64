namespace LoKr.Core.Training;

/// <summary>What a training run would do (<c>Start-LoKrTraining -WhatIf</c>). Flat and serializable.</summary>
public sealed record TrainingPlan
{
    /// <summary>Name of the adapter to train.</summary>
    public required string AdapterName { get; init; }

    /// <summary>Rows of data.</summary>
    public required int RowCount { get; init; }

    /// <summary>Batches in a pass over the data.</summary>
    public required int BatchesPerEpoch { get; init; }

    /// <summary>Optimizer steps in a pass over the data.</summary>
    public required int StepsPerEpoch { get; init; }

    /// <summary>Optimizer steps in all.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>Steps in which the learning rate rises.</summary>
    public required int WarmupSteps { get; init; }

    /// <summary>Number of trainable parameters.</summary>
    public required long TrainableParameterCount { get; init; }

    /// <summary>Bytes of trainable values, their gradients and the state of the optimizer.</summary>
    public required long OptimizerBytes { get; init; }

    /// <summary>Bytes of all parameters of the model, adapters included.</summary>
    public required long ModelBytes { get; init; }

    /// <summary>The most tokens (with padding) or rows that one batch holds; memory for activations grows with it.</summary>
    public required long LargestBatch { get; init; }

    /// <summary>What <see cref="LargestBatch"/> counts: tokens or rows.</summary>
    public required string Unit { get; init; }

    /// <summary>What the user should know of the data, in words.</summary>
    public required IReadOnlyList<string> Warnings { get; init; }

    /// <summary>The plan in one sentence.</summary>
    public override string ToString() => string.Create(
        System.Globalization.CultureInfo.InvariantCulture,
        $"Train adapter '{AdapterName}' ({TrainableParameterCount:N0} parameters) for {TotalSteps:N0} steps ({StepsPerEpoch:N0} an epoch, {WarmupSteps:N0} warm-up) on {RowCount:N0} rows; {Megabytes(OptimizerBytes)} for values, gradients and optimizer beside {Megabytes(ModelBytes)} of model, and activations of up to {LargestBatch:N0} {Unit} at once.");

    private static string Megabytes(long bytes) =>
        string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{bytes / 1048576.0:N1} MiB");
}
