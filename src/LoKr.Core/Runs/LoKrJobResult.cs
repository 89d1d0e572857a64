using LoKr.Core.IO;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>How a job ended. Flat and serializable; the last one is in <c>result.json</c> in the job's folder of runs.</summary>
public sealed record LoKrJobResult
{
    /// <summary>Name of the job.</summary>
    public required string Job { get; init; }

    /// <summary>The job file.</summary>
    public required string Path { get; init; }

    /// <summary>How it ended.</summary>
    public required LoKrJobState State { get; init; }

    /// <summary>The exit code of a process that only does this job; see <see cref="RunExitCodes"/>.</summary>
    public required int ExitCode { get; init; }

    /// <summary>Id of the error that ended it; null without one.</summary>
    public string? ErrorId { get; init; }

    /// <summary>Tells in one sentence how the job ended.</summary>
    public required string Message { get; init; }

    /// <summary>The run folder; null where nothing was trained.</summary>
    public string? Run { get; init; }

    /// <summary>Number of the version that was registered; null without one.</summary>
    public int? Version { get; init; }

    /// <summary>Number of the version that was in use before; null without one.</summary>
    public int? Champion { get; init; }

    /// <summary>Rows that were trained on.</summary>
    public int RowCount { get; init; }

    /// <summary>Steps of the run.</summary>
    public int Steps { get; init; }

    /// <summary>Evaluation of the new adapter.</summary>
    public LoKrEvaluation? Evaluation { get; init; }

    /// <summary>The verdict of the gate, in one sentence; null where it was not asked.</summary>
    public string? Gate { get; init; }

    /// <summary>The report; null without one.</summary>
    public string? Report { get; init; }

    /// <summary>Labels that the head was grown for.</summary>
    public IReadOnlyList<string> NewLabels { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>Versions that were removed.</summary>
    public IReadOnlyList<int> RemovedVersions { get; init => field = ValueList.Of(value); } = ValueList.Of<int>([]);

    /// <summary>Runs that were removed.</summary>
    public IReadOnlyList<string> RemovedRuns { get; init => field = ValueList.Of(value); } = ValueList.Of<string>([]);

    /// <summary>When it began, in UTC.</summary>
    public required DateTime Started { get; init; }

    /// <summary>How long it took.</summary>
    public TimeSpan Elapsed { get; init; }

    /// <inheritdoc/>
    public override string ToString() => FormattableString.Invariant($"{Job}: {State} ({ExitCode}). {Message}");
}

/// <summary>How a job ended.</summary>
public enum LoKrJobState
{
    /// <summary>Trained, and published.</summary>
    Published,

    /// <summary>Trained; the job has no registry.</summary>
    Trained,

    /// <summary>Data, base model and configuration are those of the version in use.</summary>
    NothingToDo,

    /// <summary>The gate was not passed; the version in use stays.</summary>
    NotBetter,

    /// <summary>Stopped by a signal, another process or the time limit, with a checkpoint: run again to go on.</summary>
    Stopped,

    /// <summary>Ended by an error.</summary>
    Failed,
}

/// <summary>A fault in a job file. Flat and serializable.</summary>
public sealed record LoKrJobCheck
{
    /// <summary>The file.</summary>
    public required string Path { get; init; }

    /// <summary>Name of the job.</summary>
    public required string Name { get; init; }

    /// <summary>Whether the job can be run, as far as its file says.</summary>
    public bool IsValid => Problems.Count == 0;

    /// <summary>The problems, in the order of the file.</summary>
    public IReadOnlyList<JobProblem> Problems { get; init => field = ValueList.Of(value); } = ValueList.Of<JobProblem>([]);

    /// <inheritdoc/>
    public override string ToString() => $"{Name}: {(IsValid ? "valid" : Problems)}";
}
