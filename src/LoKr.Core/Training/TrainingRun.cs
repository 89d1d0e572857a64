using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>One run of the trainer: the loop and its state.</summary>
internal sealed class TrainingRun : IDisposable
{
    private readonly IReadOnlyList<Trainee> _trainees;
    private readonly LoKrModel _model;
    private readonly ITrainingTask _task;
    private readonly ITrainingTask? _validation;
    private readonly TrainingOptions _options;
    private readonly Schedule _schedule;
    private readonly long _seed;
    private readonly ModuleModes[] _modes;
    private readonly TrainableOnly[] _trainable;
    private readonly FlatAdamW _optimizer;
    private readonly CheckpointedBlocks? _checkpoints;
    private readonly CallCheck[] _calls;
    private readonly MemoryPeak _memory = new();
    private readonly Throughput _throughput = new();
    private readonly List<LoKrTrainingStep> _history = [];
    private readonly long _started = Stopwatch.GetTimestamp();

    public TrainingRun(IReadOnlyList<Trainee> trainees, ITrainingTask task, ITrainingTask? validation, TrainingOptions options, int totalSteps)
    {
        (_trainees, _model, _task, _validation, _options) = (trainees, trainees[0].Model, task, validation, options);
        _schedule = Schedule.For(options, totalSteps);
        _seed = options.Seed ?? Random.Shared.NextInt64();
        if (options.Seed is long seed)
        {
            random.manual_seed(seed);
        }

        _modes = [.. trainees.Select(trainee => new ModuleModes(trainee.Model.Module))];
        _calls = [.. trainees.Select(trainee => new CallCheck(trainee.Adapter))];
        _optimizer = new FlatAdamW(
            [.. trainees.SelectMany(trainee => trainee.Adapter.FlatParameters)], options.Beta1, options.Beta2, options.Epsilon, options.WeightDecay);
        _trainable = [.. trainees.Select(trainee => new TrainableOnly(trainee.Model, trainee.Adapter))];
        _checkpoints = options.GradientCheckpointing ? new CheckpointedBlocks(trainees) : null;
    }

    public LoKrTrainingResult Execute(Action<LoKrTrainingStep>? onStep, CancellationToken token)
    {
        LoKrEvaluation? before = null;
        LoKrEvaluation? after = null;
        string stopReason = "Completed";
        try
        {
            before = _options.EvaluateBefore ? Evaluate(token) : null;
            after = Train(onStep, token);
        }
        catch (OperationCanceledException) when (token.IsCancellationRequested)
        {
            stopReason = "Canceled";
        }

        return new LoKrTrainingResult
        {
            AdapterName = Trainee.NameOf(_trainees),
            History = _history,
            StopReason = stopReason,
            Before = before,
            After = after,
            Seed = _seed,
            TrainableParameterCount = _trainees.Sum(trainee => trainee.Adapter.ParameterCount),
            PeakMemoryBytes = _memory.Bytes,
            Elapsed = Stopwatch.GetElapsedTime(_started),
        };
    }

    public void Dispose()
    {
        _checkpoints?.Dispose();
        _optimizer.ZeroGradients();
        _optimizer.Dispose();
        Array.ForEach(_trainable, static trainable => trainable.Dispose());
        Array.ForEach(_modes, static modes => modes.Dispose());
        _memory.Dispose();
    }

    private LoKrEvaluation? Train(Action<LoKrTrainingStep>? onStep, CancellationToken token)
    {
        LoKrEvaluation? last = null;
        int stepsPerEpoch = Trainer.StepsPerEpoch(_task, _options);
        using var gradients = enable_grad();

        // Once is enough: an evaluation puts every module back into this mode.
        foreach (Trainee trainee in _trainees)
        {
            trainee.Model.Module.train();
        }

        for (int epoch = 0; _history.Count < _schedule.TotalSteps; epoch++)
        {
            BatchOrder order = new(_options.BatchSize, Shuffle: true, _options.LengthBucketing, _seed, epoch);
            using Prefetch<TrainingBatch[]> prefetch = new(_task.Batches(order).Chunk(_options.GradientAccumulation));
            int inEpoch = 0;
            foreach (TrainingBatch[] group in prefetch.Items())
            {
                inEpoch++;
                LoKrTrainingStep step = Step(group, epoch + ((double)inEpoch / stepsPerEpoch), token);
                _history.Add(step);
                bool final = step.Step == _schedule.TotalSteps;
                if (_validation is not null && (final || (_options.EvaluateEvery is int every ? step.Step % every == 0 : inEpoch == stepsPerEpoch)))
                {
                    last = Evaluate(token)!;
                    step = step with { EvaluationLoss = last.Loss, Accuracy = last.Accuracy, Perplexity = last.Perplexity };
                    _history[^1] = step;
                }

                onStep?.Invoke(step);
                if (final)
                {
                    return last;
                }
            }
        }

        return last;
    }

    private LoKrTrainingStep Step(TrainingBatch[] group, double epoch, CancellationToken token)
    {
        long started = Stopwatch.GetTimestamp();
        int index = _history.Count;
        double learningRate = _schedule.At(index);
        using var scope = NewDisposeScope();
        _optimizer.ZeroGradients();
        Tensor loss = Accumulate(group, index, token);
        (double lossValue, double norm) = ReadFinite(loss, _optimizer.GradientNorm(), index + 1, learningRate);
        _optimizer.Clip(_options.MaxGradientNorm, norm);
        _optimizer.Step(learningRate);
        _throughput.Add(group.Sum(batch => batch.UnitCount), Stopwatch.GetElapsedTime(started));
        return new LoKrTrainingStep
        {
            Step = index + 1,
            TotalSteps = _schedule.TotalSteps,
            Epoch = epoch,
            Loss = lossValue,
            LearningRate = learningRate,
            GradientNorm = norm,
            TokensPerSecond = _throughput.PerSecond,
            Elapsed = Stopwatch.GetElapsedTime(_started),
        };
    }

    /// <summary>Gradients of the group as if it were one batch: each batch counts by its tokens or rows with loss. Returns the loss, detached.</summary>
    private Tensor Accumulate(TrainingBatch[] group, int index, CancellationToken token)
    {
        double all = group.Sum(batch => batch.LossCount);
        Tensor sum = zeros([], ScalarType.Float32, _model.Device);
        foreach (TrainingBatch batch in group)
        {
            token.ThrowIfCancellationRequested();
            using var scope = NewDisposeScope();
            Tensor loss = _task.Loss(_model, batch);
            if (index == 0)
            {
                Array.ForEach(_calls, static calls => calls.Require());
            }

            if (!loss.requires_grad)
            {
                throw new LoKrException(
                    ErrorIds.LossInvalid,
                    LoKrErrorKind.InvalidOperation,
                    "The loss does not depend on the adapter: it has no gradient.",
                    "Compute it from the model's output, with gradients on and without detach() or item().");
            }

            Tensor weighted = group.Length == 1 ? loss : loss * (batch.LossCount / all);
            weighted.backward();
            _checkpoints?.Backward();
            sum.add_(weighted.detach().to(ScalarType.Float32, sum.device));
        }

        return sum;
    }

    /// <summary>Reads both numbers at once, so that the device is waited for once a step, and stops before they spoil the parameters.</summary>
    private (double Loss, double Norm) ReadFinite(Tensor loss, Tensor norm, int step, double learningRate)
    {
        double[] values = stack([loss.to(ScalarType.Float64), norm.to(ScalarType.Float64, loss.device)]).cpu().data<double>().ToArray();
        if (double.IsFinite(values[0]) && double.IsFinite(values[1]))
        {
            return (values[0], values[1]);
        }

        bool lossIsFinite = double.IsFinite(values[0]);
        throw new LoKrException(
            lossIsFinite ? ErrorIds.GradientNotFinite : ErrorIds.LossNotFinite,
            LoKrErrorKind.InvalidData,
            string.Create(
                CultureInfo.InvariantCulture,
                $"The {(lossIsFinite ? "gradient" : "loss")} became {values[lossIsFinite ? 1 : 0]} in step {step} of {_schedule.TotalSteps} (learning rate {learningRate:G4})."),
            "The adapter is as after the step before. Use a lower learning rate, a warm-up or clipping, or look at the data of that step.") { Target = step };
    }

    private LoKrEvaluation? Evaluate(CancellationToken token) =>
        _validation is null ? null : Evaluator.Evaluate([.. _trainees.Select(trainee => trainee.Model)], _validation, _options.EvaluationBatchSize ?? _options.BatchSize, token);
}

/// <summary>Units a second over the last steps; time between steps (evaluation, a slow reader) does not count.</summary>
internal sealed class Throughput
{
    private const int Window = 20;

    private readonly Queue<(long Units, TimeSpan Time)> _steps = new();
    private long _units;
    private TimeSpan _time;

    /// <summary>Mean over the window.</summary>
    public double PerSecond => _time > TimeSpan.Zero ? _units / _time.TotalSeconds : 0;

    /// <summary>Adds a step.</summary>
    public void Add(long units, TimeSpan time)
    {
        _steps.Enqueue((units, time));
        _units += units;
        _time += time;
        if (_steps.Count > Window)
        {
            (long oldUnits, TimeSpan oldTime) = _steps.Dequeue();
            _units -= oldUnits;
            _time -= oldTime;
        }
    }
}

/// <summary>The most memory that the process held while this object lives: its working set, looked at twenty times a second.</summary>
internal sealed class MemoryPeak : IDisposable
{
    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(50);

    private readonly Timer _timer;
    private long _bytes = Environment.WorkingSet;

    public MemoryPeak() => _timer = new Timer(static state => ((MemoryPeak)state!).Look(), this, s_interval, s_interval);

    /// <summary>The largest value up to now.</summary>
    public long Bytes
    {
        get
        {
            Look();
            return Interlocked.Read(ref _bytes);
        }
    }

    public void Dispose() => _timer.Dispose();

    private void Look()
    {
        long now = Environment.WorkingSet;
        long seen = Interlocked.Read(ref _bytes);
        while (now > seen)
        {
            long before = Interlocked.CompareExchange(ref _bytes, now, seen);
            if (before == seen)
            {
                return;
            }

            seen = before;
        }
    }
}

/// <summary>
/// Finds adapted layers that never run: their adapter would stay as it is, without a word.
/// That happens when a module is used through <c>forward</c> or its weights alone, where hooks do not fire.
/// </summary>
internal sealed class CallCheck(LoKrAdapter adapter)
{
    private readonly (LoKrLayer Layer, long Before)[] _layers = [.. adapter.Layers.Select(layer => (layer, layer.CallCount))];

    /// <summary>Throws when a layer has not run since this object was made.</summary>
    public void Require()
    {
        string[] silent = [.. _layers.Where(entry => entry.Layer.CallCount == entry.Before).Select(entry => entry.Layer.ModuleName)];
        if (silent.Length == 0)
        {
            return;
        }

        string named = string.Join(", ", silent.Take(10)) + (silent.Length > 10 ? ", …" : "");
        throw new LoKrException(
            ErrorIds.AdapterNotCalled,
            LoKrErrorKind.InvalidOperation,
            $"{silent.Length} of {_layers.Length} adapted layers did not run in the first step: {named}.",
            "Call modules with call(), not forward(), so that the adapter's hook runs; or leave layers out that the loss does not use (-ExcludeModules).")
        { Target = silent };
    }
}
