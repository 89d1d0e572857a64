using System.Diagnostics;
using System.Globalization;
using LoKr.Core.Errors;
using LoKr.Core.Layers;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using static TorchSharp.torch;

namespace LoKr.Core.Training;

/// <summary>One run of the trainer: the loop over batches, and its state.</summary>
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
    private readonly LastFiniteValues _lastFinite;
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
        FlatParameter[] parameters = [.. trainees.SelectMany(trainee => trainee.Adapter.FlatParameters)];
        _lastFinite = new LastFiniteValues(parameters);
        _optimizer = new FlatAdamW(
            parameters, options.Beta1, options.Beta2, options.Epsilon, options.WeightDecay);
        _trainable = [.. trainees.Select(trainee => new TrainableOnly(trainee.Model, trainee.Adapter))];
        _checkpoints = options.GradientCheckpointing ? new CheckpointedBlocks(trainees) : null;
    }

    /// <summary>Runs, and sets the result on every model that is trained, also when the run diverges.</summary>
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
        catch (LoKrException exception) when (exception.ErrorId is ErrorIds.LossNotFinite or ErrorIds.GradientNotFinite or ErrorIds.LogitsNotFinite)
        {
            _lastFinite.Restore();
            Report("Diverged", before, null);
            throw;
        }

        return Report(stopReason, before, after);
    }

    public void Dispose()
    {
        _checkpoints?.Dispose();
        _optimizer.ZeroGradients();
        _optimizer.Dispose();
        _lastFinite.Dispose();
        Array.ForEach(_trainable, static trainable => trainable.Dispose());
        Array.ForEach(_modes, static modes => modes.Dispose());
        _memory.Dispose();
    }

    private LoKrTrainingResult Report(string stopReason, LoKrEvaluation? before, LoKrEvaluation? after)
    {
        LoKrTrainingResult result = new()
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
        foreach (Trainee trainee in _trainees)
        {
            trainee.Model.LastTraining = result;
        }

        return result;
    }

    private LoKrEvaluation? Train(Action<LoKrTrainingStep>? onStep, CancellationToken token)
    {
        LoKrEvaluation? last = null;
        int stepsPerEpoch = Trainer.StepsPerEpoch(_task, _options);
        using var gradients = enable_grad();

        // An evaluation returns every module to this mode.
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
                if (final)
                {
                    RequireFiniteParameters(step);
                }

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
        _lastFinite.Keep();
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

    /// <summary>
    /// Accumulates the gradients of a group of batches as if it were one batch: each batch has the weight of its tokens or rows with loss.
    /// Returns the loss, detached.
    /// </summary>
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

    /// <summary>
    /// Reads both numbers at once, so that a step waits for the device only once. Throws where one is not finite, before the optimizer
    /// changes the parameters.
    /// </summary>
    private (double Loss, double Norm) ReadFinite(Tensor loss, Tensor norm, int step, double learningRate)
    {
        double[] values = stack([loss.to(ScalarType.Float64), norm.to(ScalarType.Float64, loss.device)]).cpu().data<double>().ToArray();
        if (double.IsFinite(values[0]) && double.IsFinite(values[1]))
        {
            return (values[0], values[1]);
        }

        bool lossIsFinite = double.IsFinite(values[0]);
        throw Diverged(
            lossIsFinite ? ErrorIds.GradientNotFinite : ErrorIds.LossNotFinite,
            string.Create(CultureInfo.InvariantCulture, $"The {(lossIsFinite ? "gradient" : "loss")} became {values[lossIsFinite ? 1 : 0]}"),
            step,
            learningRate);
    }

    /// <summary>Throws where the last step, which no further loss looks at, made a parameter infinite or NaN.</summary>
    private void RequireFiniteParameters(LoKrTrainingStep step)
    {
        if (!_lastFinite.AreCurrentFinite())
        {
            throw Diverged(ErrorIds.LossNotFinite, "A parameter became NaN or infinite", step.Step, step.LearningRate);
        }
    }

    private LoKrException Diverged(string id, string what, int step, double learningRate) => new(
        id,
        LoKrErrorKind.InvalidData,
        string.Create(CultureInfo.InvariantCulture, $"{what} in step {step} of {_schedule.TotalSteps} (learning rate {learningRate:G4})."),
        "The adapter has the values that last gave a finite loss. Use a lower learning rate, a warm-up or clipping, or check the data of that step.") { Target = step };

    private LoKrEvaluation? Evaluate(CancellationToken token) =>
        _validation is null ? null : Evaluator.Evaluate([.. _trainees.Select(trainee => trainee.Model)], _validation, _options.EvaluationBatchSize ?? _options.BatchSize, token);
}
