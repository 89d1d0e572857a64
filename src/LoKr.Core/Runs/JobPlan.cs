using LoKr.Core.IO;
using LoKr.Core.Training;

namespace LoKr.Core.Runs;

/// <summary>The plan of a job. Flat and serializable.</summary>
public sealed record JobPlan
{
    /// <summary>Name of the job.</summary>
    public required string Job { get; init; }

    /// <summary>The version in use; null without one.</summary>
    public int? Champion { get; init; }

    /// <summary>Rows to train on.</summary>
    public required int RowCount { get; init; }

    /// <summary>Whether data, base model and configuration are those of the version in use, so that nothing is done.</summary>
    public bool IsNothingNew { get; init; }

    /// <summary>Labels that the head is grown for.</summary>
    public IReadOnlyList<string> NewLabels { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>The training; null where nothing is done.</summary>
    public TrainingPlan? Training { get; init; }

    /// <summary>The run folder.</summary>
    public string? Run { get; init; }

    /// <summary>Whether the run in the folder goes on.</summary>
    public bool IsContinued { get; init; }

    /// <summary>Whether a gate decides about the result.</summary>
    public bool Gate { get; init; }

    /// <summary>The registry; null without one.</summary>
    public string? Registry { get; init; }

    /// <summary>Name of the adapter in the registry.</summary>
    public string? Adapter { get; init; }

    /// <summary>The alias that gets the version.</summary>
    public string? Alias { get; init; }

    /// <summary>The plan in sentences.</summary>
    public override string ToString() => IsNothingNew
        ? FormattableString.Invariant($"Nothing is new: data, base model and configuration are those of version {Champion}.")
        : $"{(NewLabels.Count == 0 ? "" : $"Grow the head for {NewLabels}. ")}{(IsContinued ? "Go on" : "Begin")} in {Run}. {Training}"
            + (Gate ? $" Compare it with {(Champion is null ? "the base model" : FormattableString.Invariant($"version {Champion}"))}." : "")
            + (Registry is null ? "" : $" {(Gate ? "If it is better, register" : "Register")} it as {Adapter} in {Registry} and let {Alias} mean it.");
}
