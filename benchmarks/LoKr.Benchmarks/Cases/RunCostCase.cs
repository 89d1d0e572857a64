using System.Diagnostics;
using LoKr.Benchmarks.Harness;
using LoKr.Core.Configuration;
using LoKr.Core.Data;
using LoKr.Core.Model;
using LoKr.Core.Runs;
using LoKr.Core.Training;
using LoKr.Models.Loading;

namespace LoKr.Benchmarks.Cases;

/// <summary>
/// Cost of a run folder: the time of its log and its events, and that of a checkpoint for 200 steps, against the steps around them. Each call of the
/// recorder is timed by itself, beside the steps of the same run: two runs would differ by more than what is measured.
/// </summary>
internal sealed class RunCostCase : IBenchmarkCase
{
    private const int Steps = 200; // between two checkpoints, as they are used
    private const int Window = 10; // as they are measured
    private const double Limit = 0.01;

    private static readonly string[] s_labels = ["access", "billing", "network"];

    /// <inheritdoc/>
    public string Name => "run-cost";

    /// <inheritdoc/>
    public string Title => "log, events and checkpoints of a run of MiniLM-L6 on all linear layers, batch 16 x 64 tokens, rank 8";

    /// <inheritdoc/>
    public void Run(BenchmarkContext context)
    {
        string? folder = TrainingStepCase.FindModel();
        if (folder is null)
        {
            context.Note("Left out: ../shared/models/minilm is not there.");
            return;
        }

        using LoKrModel model = ModelLoader.Load(folder, new() { Labels = s_labels, Device = context.Device });
        Adapters.Fill(model.AddAdapter(new() { R = 8, Alpha = 16, TargetModules = ModuleSelector.FromPattern("all-linear"), ModulesToSave = ["classifier"] }));
        using ITrainingTask task = TrainingTaskFactory.Create(model, [.. Enumerable.Range(0, 320).Select(Row)], maxLength: 64);
        TrainingOptions options = new() { MaxSteps = 1 + (Window * (context.Options.Quick ? 8 : 40)), BatchSize = 16, LearningRate = 1e-5, Seed = 1 };
        RunOptions run = new() { Path = Path.Combine(context.Directory, "run"), CheckpointEvery = new(Window) };
        TimedJournal? timed = null;
        RunRecorder.Record(run, model, task, null, options, journal => Trainer.Run([model], task, null, options, timed = new(journal!)));

        double[][] windows = [.. timed!.Calls.Skip(Window).Chunk(Window).Where(static window => window.Length == Window).Select(Shares)];
        double step = Statistics.Median(timed.Calls.Select(static call => call.Step));
        context.Note(FormattableString.Invariant($"{windows.Length} checkpoints of {1000 * Steps * step * Statistics.Median(windows.Select(static window => window[1])):0.0} ms, {1000 * step * Statistics.Median(windows.Select(static window => window[0])):0.00} ms of log and events a step of {1000 * step:0} ms"));
        Report("log and events", 0);
        Report(FormattableString.Invariant($"a checkpoint every {Steps} steps"), 1);

        void Report(string what, int index)
        {
            double[] shares = [.. windows.Select(window => window[index] / Limit)];
            context.Report(new(what, new(what, "1 % of the steps", 1), Statistics.Median(shares), Statistics.Quantile(shares, 0.25), Statistics.Quantile(shares, 0.75)));
        }
    }

    // The last step of a window is the one with a checkpoint.
    private static double[] Shares((double Step, double Journal)[] window)
    {
        double step = window.Average(static call => call.Step);
        double log = window[..^1].Average(static call => call.Journal);
        return [log / step, (window[^1].Journal - log) / (Steps * step)];
    }

    private static DataRow Row(int number) => new(
        new Dictionary<string, object?> { ["text"] = string.Join(' ', Enumerable.Range(0, 48).Select(i => $"word{(number * 31) + (i * 17) % 97}")), ["label"] = s_labels[number % s_labels.Length] },
        FormattableString.Invariant($"row {number}"));

    /// <summary>Times the calls of a journal, and the steps between them.</summary>
    private sealed class TimedJournal(ITrainingJournal inner) : ITrainingJournal
    {
        private long _at = Stopwatch.GetTimestamp();

        public List<(double Step, double Journal)> Calls { get; } = [];

        public long Seed => inner.Seed;

        public TrainingState? Start => inner.Start;

        public CancellationToken Stop => inner.Stop;

        public string StopReason => inner.StopReason;

        public void OnStart(Func<TrainingState> capture)
        {
            inner.OnStart(capture);
            _at = Stopwatch.GetTimestamp();
        }

        public void OnStep(LoKrTrainingStep step, bool isBest, Func<TrainingState> capture)
        {
            long begin = Stopwatch.GetTimestamp();
            inner.OnStep(step, isBest, capture);
            long end = Stopwatch.GetTimestamp();
            Calls.Add((Stopwatch.GetElapsedTime(_at, begin).TotalSeconds, Stopwatch.GetElapsedTime(begin, end).TotalSeconds));
            _at = end;
        }

        public void OnEnd(LoKrTrainingResult result, Func<TrainingState> capture) => inner.OnEnd(result, capture);
    }
}
