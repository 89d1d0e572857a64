using System.Text;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;

namespace LoKr.Core.Runs;

/// <summary>
/// <c>log.jsonl</c>: one JSON object a line for each step, in order, written when the step and its evaluation are complete. It can be
/// read while it grows. Numbers read back to the same bits.
/// </summary>
internal sealed class RunLog : IDisposable
{
    private static readonly JsonErrors s_errors = new(ErrorIds.RunInvalid, ErrorIds.RunInvalid, "Restore the folder from a copy, or begin a new run.");

    private readonly FileStream _stream;
    private readonly string _path;

    private RunLog(FileStream stream, string path) => (_stream, _path) = (stream, path);

    /// <summary>Opens the log to go on after a step; what follows it is cut off, also a line that was not finished.</summary>
    /// <param name="path">The file; created where it does not exist.</param>
    /// <param name="steps">Number of steps that stay.</param>
    /// <exception cref="LoKrException"><c>LoKr.RunInvalid</c>: a step is missing; <c>LoKr.FileNotWritable</c>.</exception>
    public static RunLog Open(string path, int steps)
    {
        long length = steps == 0 ? 0 : Read(path, steps, []);
        try
        {
            FileStream stream = new(path, FileMode.OpenOrCreate, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete, 1);
            stream.SetLength(length);
            stream.Position = length;
            return new RunLog(stream, path);
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(path, exception);
        }
    }

    /// <summary>Reads the first steps of a log.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunInvalid</c>, naming file and line; also where there are fewer steps.</exception>
    public static List<LoKrTrainingStep> Read(string path, int steps)
    {
        List<LoKrTrainingStep> history = [];
        if (steps > 0)
        {
            Read(path, steps, history);
        }

        return history;
    }

    /// <summary>Reads all steps of a log; a last line that is not finished is left out.</summary>
    /// <exception cref="LoKrException"><c>LoKr.RunInvalid</c>, naming file and line.</exception>
    public static List<LoKrTrainingStep> Read(string path)
    {
        List<LoKrTrainingStep> history = [];
        if (File.Exists(path))
        {
            Read(path, null, history);
        }

        return history;
    }

    /// <summary>Adds a step.</summary>
    public void Add(LoKrTrainingStep step) => Try(() => _stream.Write(Encoding.UTF8.GetBytes(JsonRecords.ToLine(RunLogLine.Of(step)) + "\n")));

    /// <summary>Brings what was added to the disk, so that a checkpoint never knows more steps than the log.</summary>
    public void Flush() => Try(() => _stream.Flush(flushToDisk: true));

    /// <inheritdoc/>
    public void Dispose() => _stream.Dispose();

    // Returns where the line of the last step that was read ends.
    private static long Read(string path, int? last, List<LoKrTrainingStep> history)
    {
        byte[] bytes = FileSystem.ReadBytes(path);
        int start = 0;
        while (history.Count != last)
        {
            int length = bytes.AsSpan(start).IndexOf((byte)'\n');
            if (length < 0)
            {
                return last is null ? start : throw new LoKrException(ErrorIds.RunInvalid, LoKrErrorKind.InvalidData,
                    FormattableString.Invariant($"'{path}' has {history.Count} steps; the checkpoint is of step {last}."), s_errors.Advice) { Target = path };
            }

            string source = FormattableString.Invariant($"{path}, line {history.Count + 1}");
            LoKrTrainingStep step = JsonRecords.Parse<RunLogLine>(Encoding.UTF8.GetString(bytes, start, length), source, s_errors).ToStep();
            if (step.Step != history.Count + 1)
            {
                throw new LoKrException(ErrorIds.RunInvalid, LoKrErrorKind.InvalidData,
                    FormattableString.Invariant($"'{source}' is of step {step.Step}."), s_errors.Advice) { Target = path };
            }

            history.Add(step);
            start += length + 1;
        }

        return start;
    }

    private void Try(Action action)
    {
        try
        {
            action();
        }
        catch (Exception exception) when (FileErrors.IsFileSystem(exception))
        {
            throw FileErrors.NotWritable(_path, exception);
        }
    }
}

/// <summary>A line of <c>log.jsonl</c>.</summary>
internal sealed record RunLogLine
{
    public required int Step { get; init; }

    public required int TotalSteps { get; init; }

    public required double Epoch { get; init; }

    public required double Loss { get; init; }

    public required double LearningRate { get; init; }

    public double? HeadLearningRate { get; init; }

    public required double GradientNorm { get; init; }

    public required double TokensPerSecond { get; init; }

    /// <summary>Seconds since the run began, over all processes that worked on it.</summary>
    public required double ElapsedSeconds { get; init; }

    public double? EvaluationLoss { get; init; }

    public double? Accuracy { get; init; }

    public double? EntityF1 { get; init; }

    public double? Perplexity { get; init; }

    public double? NdcgAt10 { get; init; }

    public double? Spearman { get; init; }

    public static RunLogLine Of(LoKrTrainingStep step) => new()
    {
        Step = step.Step,
        TotalSteps = step.TotalSteps,
        Epoch = step.Epoch,
        Loss = step.Loss,
        LearningRate = step.LearningRate,
        HeadLearningRate = step.HeadLearningRate,
        GradientNorm = step.GradientNorm,
        TokensPerSecond = step.TokensPerSecond,
        ElapsedSeconds = step.Elapsed.TotalSeconds,
        EvaluationLoss = step.EvaluationLoss,
        Accuracy = step.Accuracy,
        EntityF1 = step.EntityF1,
        Perplexity = step.Perplexity,
        NdcgAt10 = step.NdcgAt10,
        Spearman = step.Spearman,
    };

    public LoKrTrainingStep ToStep() => new()
    {
        Step = Step,
        TotalSteps = TotalSteps,
        Epoch = Epoch,
        Loss = Loss,
        LearningRate = LearningRate,
        HeadLearningRate = HeadLearningRate,
        GradientNorm = GradientNorm,
        TokensPerSecond = TokensPerSecond,
        Elapsed = TimeSpan.FromSeconds(ElapsedSeconds),
        EvaluationLoss = EvaluationLoss,
        Accuracy = Accuracy,
        EntityF1 = EntityF1,
        Perplexity = Perplexity,
        NdcgAt10 = NdcgAt10,
        Spearman = Spearman,
    };
}
