using System.Text.Json.Serialization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>
/// A run on disk: the content of <c>run.json</c>, which is replaced as a whole every few seconds while the run goes on. Flat and serializable.
/// </summary>
public sealed record LoKrRun
{
    /// <summary>Version of the format.</summary>
    public int Format { get; init; } = 1;

    /// <summary>Id of the run: the time of its beginning and eight random digits.</summary>
    public required string Id { get; init; }

    /// <summary>The run folder, as it is now; not in the file, since a folder can be moved.</summary>
    [JsonIgnore]
    public string Path { get; init; } = "";

    /// <summary>State of the run.</summary>
    public required RunState State { get; init; }

    /// <summary>Why it ended: a value of <see cref="LoKrTrainingResult.StopReason"/>, or the id of an error; null while it runs.</summary>
    public string? Reason { get; init; }

    /// <summary>The message of the error that ended it.</summary>
    public string? Message { get; init; }

    /// <summary>The exit code of a process that only does this run; see <see cref="RunExitCodes"/>. Null while it runs.</summary>
    public int? ExitCode { get; init; }

    /// <summary>Name of the model.</summary>
    public required string Model { get; init; }

    /// <summary>Name of the adapter.</summary>
    public required string AdapterName { get; init; }

    /// <summary>Seed of the order of rows, of dropout and of noise.</summary>
    public required long Seed { get; init; }

    /// <summary>Highest learning rate of the head; null where it is that of all parameters, also in runs that an earlier version began.</summary>
    public double? HeadLearningRate { get; init; }

    /// <summary>Device of the model.</summary>
    public required string Device { get; init; }

    /// <summary>Threads that torch computes with.</summary>
    public required int Threads { get; init; }

    /// <summary>Batches whose gradients make one step; the numbers of the run depend on it, so a continuation needs the same.</summary>
    public int BatchesPerStep { get; init; } = 1;

    /// <summary>Processes that shared the batches when the run was last worked on; the numbers do not depend on it.</summary>
    public int Workers { get; init; } = 1;

    /// <summary>The day that a chat template wrote into the rows; a continuation writes the same. Null where none did.</summary>
    public DateTime? Day { get; init; }

    /// <summary>Steps that are complete.</summary>
    public int Step { get; init; }

    /// <summary>Steps of the whole run.</summary>
    public required int TotalSteps { get; init; }

    /// <summary>Epoch as a fraction.</summary>
    public double Epoch { get; init; }

    /// <summary>Loss of the last step.</summary>
    public double? Loss { get; init; }

    /// <summary>The course of the loss: its mean over each of at most 32 equal parts of the run, as far as it is.</summary>
    public IReadOnlyList<double> LossCurve { get; init => field = ValueList.Of(value); } = ValueList.Of<double>([]);

    /// <summary>Evaluation before the first step.</summary>
    public LoKrEvaluation? Before { get; init; }

    /// <summary>The last evaluation; of a finished run the one of the values that it ended with.</summary>
    public LoKrEvaluation? After { get; init; }

    /// <summary>Step of the best evaluation.</summary>
    public int? BestStep { get; init; }

    /// <summary>Step of the last checkpoint.</summary>
    public int? CheckpointStep { get; init; }

    /// <summary>Seconds until the end at the speed of the last steps; null where it is not known.</summary>
    public double? SecondsRemaining { get; init; }

    /// <summary>Seconds of training, over all processes that worked on the run.</summary>
    public double ElapsedSeconds { get; init; }

    /// <summary>How many processes worked on the run, this one included.</summary>
    public int Attempt { get; init; } = 1;

    /// <summary>Machine of the last of them.</summary>
    public required string Host { get; init; }

    /// <summary>Its process id.</summary>
    public required int ProcessId { get; init; }

    /// <summary>When the run began, in UTC.</summary>
    public required DateTime Created { get; init; }

    /// <summary>When the file was written, in UTC.</summary>
    public required DateTime Updated { get; init; }

    /// <summary>When the run ended, in UTC; null while it can go on.</summary>
    public DateTime? Ended { get; init; }

    /// <summary>Number of trainable parameters.</summary>
    public required long TrainableParameterCount { get; init; }

    /// <summary>Hashes of what the run was made of; a continuation needs the same.</summary>
    public required RunInputs Inputs { get; init; }

    /// <summary>Version of this library.</summary>
    public required string Version { get; init; }

    /// <summary>Version of libtorch.</summary>
    public required string LibtorchVersion { get; init; }

    /// <summary>Whether the run ended for good: nothing is left to continue.</summary>
    [JsonIgnore]
    public bool IsFinished => State is RunState.Completed;

    /// <summary>Whether its loss was NaN or infinite: the same steps would diverge again.</summary>
    internal bool HasDiverged => Reason == StopReasons.Diverged;

    /// <summary>The run folder, so that a run can stand for its path.</summary>
    public override string ToString() => Path.Length > 0 ? Path : Id;
}

/// <summary>States of a run.</summary>
public enum RunState
{
    /// <summary>A process works on it.</summary>
    Running,

    /// <summary>It ended with a result: all steps, or an early stop.</summary>
    Completed,

    /// <summary>It was stopped, or its process is gone; it can be continued from its last checkpoint.</summary>
    Interrupted,

    /// <summary>It ended with an error.</summary>
    Failed,
}

/// <summary>SHA-256 hashes of what a run is made of, as lower-case hexadecimal digits.</summary>
public sealed record RunInputs
{
    /// <summary>The rows, in order, as they are trained on; null where they cannot be told (batches of a script).</summary>
    public string? Data { get; init; }

    /// <summary>The rows of the evaluation; null without, or where they cannot be told.</summary>
    public string? ValidationData { get; init; }

    /// <summary>Names, shapes, element types and samples of the base model's tensors.</summary>
    public required string BaseModel { get; init; }

    /// <summary>
    /// Hash of how the base model uses its tensors: its <c>config.json</c>, and how a sentence encoder makes vectors and compares them. Null in runs
    /// that earlier versions began, which go on without comparing it.
    /// </summary>
    public string? ModelSettings { get; init; }

    /// <summary>The configuration of the adapter, and the options of the training on which its numbers depend.</summary>
    public required string Configuration { get; init; }

    /// <summary>The values of the adapter that the run began with; a continuation does not need them.</summary>
    public required string StartAdapter { get; init; }

    /// <summary>Hashes that the processes that work on a run must have in common, together or one after the other, under the names that messages have.</summary>
    internal IReadOnlyList<(string Name, string? Hash)> Shared =>
    [
        ("data", Data),
        ("validation data", ValidationData),
        ("base model", BaseModel),
        ("configuration of the model", ModelSettings),
        ("configuration", Configuration),
    ];

    /// <summary>Names of what the run in a folder began with otherwise.</summary>
    /// <param name="former">What it began with.</param>
    internal IEnumerable<string> DifferencesFrom(RunInputs former) => (former with { ModelSettings = former.ModelSettings ?? ModelSettings }).Shared.Zip(Shared)
        .Where(static pair => pair.First.Hash != pair.Second.Hash).Select(static pair => pair.First.Name);

    /// <summary>The beginnings of the hashes, for people.</summary>
    public override string ToString() => $"data {Short(Data)}, base model {Short(BaseModel)}, configuration {Short(Configuration)}";

    private static string Short(string? hash) => hash is null ? "unknown" : hash[..Math.Min(8, hash.Length)];
}

/// <summary>Exit codes of a process that only does a run or a job. They are an interface: schedulers act on them.</summary>
public static class RunExitCodes
{
    /// <summary>Trained, and published where the job publishes.</summary>
    public const int Success = 0;

    /// <summary>Anything that has no code of its own.</summary>
    public const int Error = 1;

    /// <summary>Nothing to do: data, base model and configuration are those of the last run.</summary>
    public const int NothingToDo = 2;

    /// <summary>The job or its data is invalid.</summary>
    public const int Invalid = 3;

    /// <summary>The new adapter is not better; the champion stays.</summary>
    public const int NotBetter = 4;

    /// <summary>Another process has the run, the job or the registry.</summary>
    public const int Busy = 5;

    /// <summary>The runtime or the model is missing.</summary>
    public const int Missing = 6;

    /// <summary>No space, or a place that cannot be written.</summary>
    public const int NoSpace = 7;

    /// <summary>The training diverged.</summary>
    public const int Diverged = 8;

    /// <summary>Stopped by a signal, another process or the time limit, with a checkpoint: run again to go on.</summary>
    public const int RunAgain = 75;

    /// <summary>The code of an error.</summary>
    public static int Of(LoKrException exception)
    {
        ArgumentNullException.ThrowIfNull(exception);
        return exception.ErrorId switch
        {
            ErrorIds.RunBusy or ErrorIds.DestinationBusy or ErrorIds.ModelBusy => Busy,
            ErrorIds.LossNotFinite or ErrorIds.GradientNotFinite or ErrorIds.LogitsNotFinite => Diverged,
            ErrorIds.DiskFull or ErrorIds.DiskSpaceLow or ErrorIds.FileNotWritable => NoSpace,
            ErrorIds.PathNotFound or ErrorIds.FileNotReadable => Missing,
            _ when exception.Kind is LoKrErrorKind.Unavailable => Missing,
            _ when exception.Kind is LoKrErrorKind.InvalidArgument or LoKrErrorKind.InvalidData => Invalid,
            _ => Error,
        };
    }

    /// <summary>The code of a run that ended in order.</summary>
    /// <param name="stopReason">A value of <see cref="LoKrTrainingResult.StopReason"/>.</param>
    public static int Of(string stopReason) => stopReason switch
    {
        _ when StopReasons.IsComplete(stopReason) => Success,
        StopReasons.Diverged => Diverged,
        _ => RunAgain,
    };
}
