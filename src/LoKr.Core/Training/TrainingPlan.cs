using LoKr.Core.IO;

namespace LoKr.Core.Training;

/// <summary>The steps, parameters and memory of a training run before it starts. Flat and serializable.</summary>
public sealed record TrainingPlan
{
    /// <summary>Name of the adapter to train.</summary>
    public required string AdapterName { get; init; }

    /// <summary>The names in it: the parts of a pipeline may have adapters with different ones.</summary>
    internal IReadOnlyList<string> AdapterNames => AdapterName.Split(Trainee.Separator);

    /// <summary>Number of rows of data.</summary>
    public required int RowCount { get; init; }

    /// <summary>Number of lines that the rows are packed into; that of the rows where each has its own.</summary>
    public required int LineCount { get; init; }

    /// <summary>Number of batches in an epoch.</summary>
    public required int BatchesPerEpoch { get; init; }

    /// <summary>Number of optimizer steps in an epoch.</summary>
    public required int StepsPerEpoch { get; init; }

    /// <summary>Number of optimizer steps.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>Steps in which the learning rate rises.</summary>
    public required int WarmupSteps { get; init; }

    /// <summary>Highest learning rate.</summary>
    public required double LearningRate { get; init; }

    /// <summary>Highest learning rate of the head; null where it is that of all parameters.</summary>
    public double? HeadLearningRate { get; init; }

    /// <summary>Full names of the modules of the head that has it.</summary>
    public IReadOnlyList<string> HeadModules { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Number of trainable parameters.</summary>
    public required long TrainableParameterCount { get; init; }

    /// <summary>Bytes of trainable values, a copy of them, their gradients and the state of the optimizer.</summary>
    public required long OptimizerBytes { get; init; }

    /// <summary>Bytes of all parameters of the model, adapters included.</summary>
    public required long ModelBytes { get; init; }

    /// <summary>Largest number of tokens (with padding) or rows in one batch; memory for activations grows with it.</summary>
    public required long LargestBatch { get; init; }

    /// <summary>Unit of <see cref="LargestBatch"/>: tokens or rows.</summary>
    public required string Unit { get; init; }

    /// <summary>Batches whose gradients make one step.</summary>
    public int BatchesPerStep { get; init; } = 1;

    /// <summary>Processes that share them.</summary>
    public int Workers { get; init; } = 1;

    /// <summary>The day that a chat template writes into the rows; null where none does.</summary>
    public DateTime? Day { get; init; }

    /// <summary>Choices made for the user.</summary>
    public IReadOnlyList<string> Notes { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Warnings about the data, and about modules with random values that the adapter does not hold.</summary>
    public required IReadOnlyList<string> Warnings { get; init => field = ValueList.Of(value); }

    /// <summary>The plan in one sentence.</summary>
    public override string ToString() => string.Create(
        System.Globalization.CultureInfo.InvariantCulture,
        $"Train adapter '{AdapterName}' ({TrainableParameterCount:N0} parameters) for {TotalSteps:N0} {(TotalSteps == 1 ? "step" : "steps")} ({StepsPerEpoch:N0} an epoch, {WarmupSteps:N0} warm-up){Sharing} at a learning rate of {LearningRate:G4}{OfHead} on {RowCount:N0} {(RowCount == 1 ? "row" : "rows")}{Packing}; {Megabytes(OptimizerBytes)} for values, gradients and optimizer beside {Megabytes(ModelBytes)} of model, and activations of up to {LargestBatch:N0} {Unit} at once.{(Day is DateTime day ? $" The chat template writes the day {day:yyyy-MM-dd}." : "")}");

    private string Packing => LineCount == RowCount ? "" : string.Create(System.Globalization.CultureInfo.InvariantCulture, $" packed into {LineCount:N0} lines");

    private string OfHead => HeadLearningRate is double rate ? FormattableString.Invariant($", {rate:G4} for the head ({string.Join(", ", HeadModules)}),") : "";

    private string Sharing => (BatchesPerStep, Workers) switch
    {
        (1, 1) => "",
        (_, 1) => FormattableString.Invariant($", each of {BatchesPerStep} batches,"),
        _ => FormattableString.Invariant($", each of {BatchesPerStep} {(BatchesPerStep == 1 ? "batch" : "batches")} shared by {Workers} workers,"),
    };

    private static string Megabytes(long bytes) =>
        string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{bytes / 1048576.0:N1} MiB");
}
