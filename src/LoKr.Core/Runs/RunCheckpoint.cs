using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Layouts;
using LoKr.Core.Model;
using LoKr.Core.Safetensors;
using LoKr.Core.Training;
using TorchSharp;

namespace LoKr.Core.Runs;

/// <summary>
/// The checkpoints of a run, <c>checkpoints/000400/</c>: <c>state.json</c>, <c>training.safetensors</c> (trained values, optimizer moments, kept
/// copies), and the adapter as PEFT stores it. Each appears complete or not at all.
/// </summary>
/// <param name="folder">The folder of all checkpoints.</param>
internal sealed class RunCheckpoints(string folder)
{
    private const string StateFile = "state.json";
    private const string TensorFile = "training.safetensors";

    private static readonly JsonErrors s_errors = new(ErrorIds.RunInvalid, ErrorIds.RunInvalid, "Remove the checkpoint, so that the one before is used, or begin a new run.");

    /// <summary>Steps of the checkpoints that exist, the last one first.</summary>
    public IReadOnlyList<int> Steps => !Directory.Exists(folder) ? [] :
    [
        .. Directory.EnumerateDirectories(folder)
            .Select(static path => int.TryParse(Path.GetFileName(path), NumberStyles.None, CultureInfo.InvariantCulture, out int step) ? step : -1)
            .Where(static step => step >= 0)
            .OrderDescending(),
    ];

    /// <summary>Writes a checkpoint.</summary>
    /// <param name="state">The state of the run.</param>
    /// <param name="target">The model or pipeline, for the adapter beside the state.</param>
    /// <param name="adapterNames">Names of the adapters.</param>
    /// <exception cref="LoKrException"><c>LoKr.FileNotWritable</c>, <c>LoKr.DiskFull</c>; the checkpoints that exist stay.</exception>
    public void Write(TrainingState state, IAdaptable target, IEnumerable<string> adapterNames)
    {
        int step = state.History.Count;
        FileSystem.CreateFolder(folder);
        using StagedDirectory staged = new(PathOf(step), force: true);
        string tensors = Path.Combine(staged.Path, TensorFile);
        SafetensorsWriter.Write(tensors, state.Tensors);
        foreach (string name in adapterNames)
        {
            AdapterExporter.Export(target, name, Path.Combine(staged.Path, "adapter"), AdapterLayout.Peft, new() { Force = true });
        }

        JsonRecords.Write(Path.Combine(staged.Path, StateFile), new CheckpointState
        {
            Seed = state.Seed,
            HeadLearningRate = state.HeadLearningRate,
            Step = step,
            TotalSteps = state.TotalSteps,
            LastStep = step == 0 ? null : RunLogLine.Of(state.History[^1]),
            EvaluationIsDue = state.EvaluationIsDue,
            Before = state.Before,
            Last = state.Last,
            Best = state.Best,
            BestStep = state.BestStep,
            EvaluationsWithoutImprovement = state.EvaluationsWithoutImprovement,
            ElapsedSeconds = state.Elapsed.TotalSeconds,
            Tensors = ContentHash.OfFile(tensors),
        });
        staged.Commit();
    }

    /// <summary>Reads the last checkpoint that is whole. The caller owns the tensors.</summary>
    /// <param name="log">The log of the run.</param>
    /// <param name="warnings">Gets a sentence for each checkpoint that is damaged.</param>
    /// <returns>The state, or null without a checkpoint.</returns>
    public TrainingState? ReadLast(string log, List<string> warnings)
    {
        foreach (int step in Steps)
        {
            try
            {
                return Read(step, log);
            }
            catch (LoKrException exception)
            {
                warnings.Add(FormattableString.Invariant($"Checkpoint {step} cannot be used: {exception.Summary}"));
            }
        }

        return null;
    }

    /// <summary>Removes the oldest checkpoints.</summary>
    /// <param name="limit">How many stay.</param>
    /// <param name="bestStep">The one that always stays.</param>
    public void Rotate(int limit, int? bestStep) => Remove(Steps.Skip(limit).Where(step => step != bestStep));

    /// <summary>Removes what killed processes left.</summary>
    public void RemoveLeftovers()
    {
        if (!Directory.Exists(folder))
        {
            return;
        }

        Try(() =>
        {
            foreach (string path in Directory.EnumerateFileSystemEntries(folder, ".*").ToArray())
            {
                if (Directory.Exists(path))
                {
                    Contention.DeleteFolder(path);
                }
                else
                {
                    Contention.DeleteFile(path);
                }
            }
        });
    }

    private void Remove(IEnumerable<int> steps)
    {
        foreach (int step in steps.ToArray())
        {
            Try(() => Contention.RemoveFolder(PathOf(step)));
        }
    }

    private TrainingState Read(int step, string log)
    {
        string path = PathOf(step);
        CheckpointState state = JsonRecords.Read<CheckpointState>(Path.Combine(path, StateFile), s_errors);
        string file = Path.Combine(path, TensorFile);
        if (ContentHash.OfFile(file) != state.Tensors)
        {
            throw new LoKrException(ErrorIds.RunInvalid, LoKrErrorKind.InvalidData, $"'{file}' has changed since it was written.", s_errors.Advice) { Target = file };
        }

        // A step whose evaluation is due is not in the log yet.
        List<LoKrTrainingStep> history = RunLog.Read(log, state.EvaluationIsDue ? step - 1 : step);
        if (state is { EvaluationIsDue: true, LastStep: not null })
        {
            history.Add(state.LastStep.ToStep());
        }

        Dictionary<string, torch.Tensor> tensors = new(StringComparer.Ordinal);
        using SafetensorsReader reader = SafetensorsReader.Open(file);
        foreach (string name in reader.Entries.Keys)
        {
            tensors.Add(name, reader.Read(name).DetachFromDisposeScope());
        }

        return new TrainingState
        {
            Seed = state.Seed,
            HeadLearningRate = state.HeadLearningRate,
            TotalSteps = state.TotalSteps,
            History = history,
            EvaluationIsDue = state.EvaluationIsDue,
            Before = state.Before,
            Last = state.Last,
            Best = state.Best,
            BestStep = state.BestStep,
            EvaluationsWithoutImprovement = state.EvaluationsWithoutImprovement,
            Elapsed = TimeSpan.FromSeconds(state.ElapsedSeconds),
            Tensors = tensors,
        };
    }

    private string PathOf(int step) => Path.Combine(folder, step.ToString("D6", CultureInfo.InvariantCulture));

    private void Try(Action action)
    {
        try
        {
            action();
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(folder, exception);
        }
    }

    private sealed record CheckpointState
    {
        public int Format { get; init; } = 1;

        public required long Seed { get; init; }

        public double? HeadLearningRate { get; init; }

        public required int Step { get; init; }

        public required int TotalSteps { get; init; }

        public RunLogLine? LastStep { get; init; }

        public bool EvaluationIsDue { get; init; }

        public LoKrEvaluation? Before { get; init; }

        public LoKrEvaluation? Last { get; init; }

        public LoKrEvaluation? Best { get; init; }

        public int? BestStep { get; init; }

        public int EvaluationsWithoutImprovement { get; init; }

        public double ElapsedSeconds { get; init; }

        /// <summary>SHA-256 of the file of tensors.</summary>
        public required string Tensors { get; init; }
    }
}
